-- Takes jobs out of a list whose records vanished before anybody forgot them. Given: the `index`, and the `cursor` of the
-- job after which to begin, if not at the beginning. Returns the cursor from which to go on, or none at the end.

local AT_ONCE = 1000
local from = given.cursor and '(' .. given.cursor or '-'
local members = redis.call('ZRANGEBYLEX', given.index, from, '+', 'LIMIT', 0, AT_ONCE)
for _, member in ipairs(members) do
  if redis.call('EXISTS', key.job .. job_of(member)) == 0 then redis.call('ZREM', given.index, member) end
end
return members[AT_ONCE]
