-- Have an idle worker of a queue look what there is.
--
-- KEYS: the queue; then, where all keys are on one server, those of name.lua. ARGV: the queue's name.
if KEYS[2] then name(KEYS[2], KEYS[3], ARGV[1]) end
wake(KEYS[1])
