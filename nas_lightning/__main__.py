"""`python -m nas_lightning` is `nas-lightning`."""

from nas_lightning.cli.main import main

if __name__ == "__main__":
    main()
