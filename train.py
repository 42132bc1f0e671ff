"""Trains an embedding model: python train.py [experiment=NAME] [study=NAME] [key=value …]."""

from polyqwen.app.jobs import train

if __name__ == "__main__":
    train()
