"""``python -m densevit``: the commands where nothing named densevit is on the PATH, and for torchrun."""

from densevit.commands import main

if __name__ == "__main__":
    main()
