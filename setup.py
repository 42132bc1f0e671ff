"""The packages of the wheel; everything else stands in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["polyqwen", "polyqwen.*"]), "polyqwen.conf"],
    package_dir={"polyqwen.conf": "conf"},  # the folder lies beside the package in a checkout
)
