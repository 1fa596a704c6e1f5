-- Note that a queue is in use.
--
-- KEYS: all queues, a ZSET of names by the moment when each was last sent to, to the minute; a wake token for a new one.
-- ARGV: the name.
name(KEYS[1], KEYS[2], ARGV[1])
