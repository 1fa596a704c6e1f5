-- Let one worker sweep for all, until it has not asked for a while.
--
-- KEYS: whose turn it is; the mark that tells one life of the data from the next.
-- ARGV: who asks, seconds, a mark to set if there is none.
-- Returns the mark, and what tells one start of the server from the next; nothing if it is another one's turn.
if not turn(KEYS[1], ARGV[1], ARGV[2]) then return false end
return life(KEYS[2], ARGV[3]) .. start()
