"""CDR: what the PBX itself wrote down about calls, to complete what was not seen live."""
