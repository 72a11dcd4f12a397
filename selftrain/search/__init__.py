"""Tree search over responses: generic over ``propose``, ``value`` and ``judge``; knows no model, task or verifier."""
