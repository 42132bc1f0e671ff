"""A trained model in use: texts and pictures to vectors."""
