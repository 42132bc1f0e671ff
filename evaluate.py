"""Evaluates a trained run: python evaluate.py run_dir=FOLDER [data.root=FOLDER] [split=test]."""

from polyqwen.app.jobs import evaluate

if __name__ == "__main__":
    evaluate()
