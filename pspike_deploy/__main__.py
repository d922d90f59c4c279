"""``python -m pspike_deploy``."""

from pspike_deploy.cli import main

if __name__ == "__main__":
    main()
