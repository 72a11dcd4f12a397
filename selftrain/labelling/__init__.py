"""What steps are to be called: numbers and pairs read off search trees, completions and files of labelled steps.

A step's label is in [0, 1], or None where nothing is known of it.
"""
