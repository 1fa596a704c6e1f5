-- End the leases that have run out.
--
-- KEYS: the leases. Returns the workers.
return expire(KEYS[1])
