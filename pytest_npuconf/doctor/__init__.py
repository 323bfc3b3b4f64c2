"""``npuconf doctor``: the fingerprint of this host, and what in it would spoil a run."""
