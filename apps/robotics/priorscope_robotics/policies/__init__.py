"""Policies: observations and a state in, the next actions out. All answer :class:`~policies.policy.Policy`."""
