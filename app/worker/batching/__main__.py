"""The network process as a program."""

from app.worker.batching.network_process import main

if __name__ == "__main__":
    main()
