"""Numbers that tell, iteration by iteration, whether a learnt reward still means what it should."""
