-- kombu keeps for a day what a worker had taken when it died. What is nobody's is dropped: its run is published again
-- when its lease runs out. Given: how `old`, in ms, messages are that are looked at. Returns how many were dropped.

local dropped = 0
local taken = redis.call('ZRANGEBYSCORE', key.unacked_index, '-inf', (now - given.old) / 1000, 'LIMIT', 0, 1000)
for _, tag in ipairs(taken) do
  local message = redis.call('HGET', key.unacked, tag)
  local known, said = pcall(cjson.decode, message)
  local run = known and type(said[1]) == 'table' and (said[1].headers or {}).id
  if not run or not redis.call('ZSCORE', key.leases, run) then
    redis.call('ZREM', key.unacked_index, tag)
    redis.call('HDEL', key.unacked, tag)
    dropped = dropped + 1
  end
end
return dropped
