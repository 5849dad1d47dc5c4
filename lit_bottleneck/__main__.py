"""``python -m lit_bottleneck`` is ``lit-bottleneck``."""

from lit_bottleneck.cli import main

if __name__ == "__main__":
    main()
