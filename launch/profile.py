"""The former name of launch.write_profiles, which this runs."""

import sys

from launch.cli.console import run_program

if __name__ == "__main__":
  run_program("profile", sys.argv[1:])
