"""A process with a cluster of its own, and a worker there that waits for ever; says when both are there."""

from __future__ import annotations

import time

from selftrain.placing.cluster import Cluster
from selftrain.schema import Launch

if __name__ == "__main__":
    with Cluster(Launch(place="ray")) as cluster:
        worker = cluster.spread(1, 0)[0]("selftrain.workers:_once", "time:sleep")
        worker.receive()
        worker.send((10_000,))
        print("there", flush=True)
        time.sleep(10_000)
