"""Processes on the machines of a Ray cluster: samplers, verifiers, trainers.

Ray decides where a process goes and tells when its machine is lost; what runs there is a worker of `selftrain.workers`,
which an actor of ours starts, and kills when it ends itself. Only what is asked for by ``launch.place: ray`` imports
Ray.
"""
