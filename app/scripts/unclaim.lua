-- Frees an idempotency key. Given: the `key` and the `token` under which it is held.

if redis.call('GET', given.key) == given.token then redis.call('DEL', given.key) end
