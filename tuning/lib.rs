//! Host tuning: checks, plans, applies and reverts kernel settings. Only the name of the room exists so far.
