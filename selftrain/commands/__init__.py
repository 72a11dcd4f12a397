"""The commands of the command line, one module each: ``arguments`` declares what it takes, ``EXAMPLES``
end its ``--help``, ``main`` does it."""

COMMANDS = {
    "run": "run the loop of a config; the same command resumes it",
    "launch": "write a job file of a run for Slurm or Ray",
    "adopt": "take rollouts of other tools as the samples of an iteration",
    "estimate": "what a config will take: tokens, memory, disk, time, cost; or what a run took beside that",
    "train": "fit one learner to a file of examples or pairs",
    "evaluate": "evaluate one checkpoint",
    "prm": "how well a reward source finds the wrong steps of labelled solutions",
    "verify": "grade a file of responses with any verifier, or compare two",
    "new": "write a verifier to begin with, and its test",
    "export": "write a checkpoint that needs nothing else, adapters merged",
    "audit": "judge a few responses by hand, and see how wrong the verifier is",
    "config": "print the resolved config",
    "report": "print the tables of a run and write its report.html",
    "status": "which stages of a run are done",
    "compare": "two runs side by side, problem by problem",
    "doctor": "what this machine can run",
    "push": "a checkpoint of a run, with a card, to the Hugging Face hub or a folder",
}
"""By name; a module is imported when its command is called."""
