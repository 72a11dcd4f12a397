"""What scores of steps are worth, against steps that people have labelled.

What follows the first wrong step is neither right nor wrong: it is labelled None and counts nowhere. Intervals are of
95 % over problems, of which all solutions stand together.
"""
