-- SPDX-License-Identifier: BSL-1.0
-- Makes wrk print its figures as one line of JSON. Latencies are in microseconds.
-- With EXPECT_BODY in the environment every response is compared with it: for the slow requests,
-- which are few. The fast ones are checked by the number of bytes read, for a Lua call for each
-- would be most of what is measured.
-- With FIRST_DELAY_MS each of CONNECTIONS is made at once and used for the first time that much later.

local expected = os.getenv("EXPECT_BODY")
local first_delay_ms = tonumber(os.getenv("FIRST_DELAY_MS"))
local waiting = tonumber(os.getenv("CONNECTIONS"))
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init()
  wrong = 0
end

if expected then
  function response(status, headers, body)
    if status ~= 200 or body ~= expected then
      wrong = wrong + 1
    end
  end
end

if first_delay_ms then
  function delay()
    waiting = waiting - 1
    return waiting >= 0 and first_delay_ms or 0
  end
end

function done(summary, latency, requests)
  local wrong_bodies = 0
  for _, thread in ipairs(threads) do
    wrong_bodies = wrong_bodies + (thread:get("wrong") or 0)
  end
  local e = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"seconds":%.6f,"bytes":%d,"p50":%.0f,"p99":%.0f,"p999":%.0f,"max":%.0f,' ..
    '"errors":%d,"timeouts":%d,"wrong":%d}\n',
    summary.requests, summary.duration / 1e6, summary.bytes, latency:percentile(50),
    latency:percentile(99), latency:percentile(99.9), latency.max,
    e.connect + e.read + e.write + e.status, e.timeout, wrong_bodies))
end
