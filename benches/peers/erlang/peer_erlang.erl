%% SPDX-License-Identifier: BSL-1.0
%%
%% The scenarios starvation, storm and latency on Erlang/OTP. What each does, and how it corresponds to
%% the programs beside it: README.md in the folder above.
-module(peer_erlang).

-export([main/0]).

-define(STEP_NS, 10000).
-define(REQUEST_NS, 20000).
%% starvation: between two bursts
-define(HOG_PAUSE_MS, 5).
%% latency: from burst to burst
-define(HOG_PERIOD_MS, 100).
-define(NS_PER_MS, 1000000).

%% Erlang's monotonic time, which its timers go by: CLOCK_MONOTONIC counted from another origin.
now_ns() ->
    erlang:monotonic_time(nanosecond).

spin(Ns) ->
    spin_until(now_ns() + Ns).

spin_until(End) ->
    case now_ns() < End of
        true -> spin_until(End);
        false -> ok
    end.

check(true, _Format, _Values) -> ok;
check(false, Format, Values) -> exit({failed, io_lib:format(Format, Values)}).

%% Sleeps until a time given in whole milliseconds, the resolution of Erlang's timers.
sleep_until(Ms) ->
    Timer = erlang:start_timer(Ms, self(), due, [{abs, true}]),
    receive
        {timeout, Timer, due} -> ok
    end.

%% Starts a process whose result await/1 returns; when it fails, so does this one.
async(Fun) ->
    Parent = self(),
    spawn_link(fun() -> Parent ! {self(), Fun()} end).

await(Pid) ->
    receive
        {Pid, Result} -> Result
    end.

%% How late each deadline was: one each millisecond, until EndNs says that the run is over.
probe(DueMs, EndNs, Lateness) ->
    sleep_until(DueMs),
    DueNs = DueMs * ?NS_PER_MS,
    Late = now_ns() - DueNs,
    case DueNs > EndNs() of
        true -> lists:reverse(Lateness);
        false -> probe(DueMs + 1, EndNs, [Late | Lateness])
    end.

check_probe(Lateness, RanForNs) ->
    Deadlines = RanForNs div ?NS_PER_MS,
    Fired = length(Lateness),
    check(Deadlines > 0 andalso Fired =:= Deadlines, "the probe fired ~b times for ~b deadlines", [Fired, Deadlines]).

%% Bursts of 10 us steps until the run ends; a burst that was begun is finished. Nothing in it yields:
%% the emulator counts reductions and takes turns by itself, in any loop.
hog(StartMs, Options) ->
    hog(StartMs, Options, {0, 0, 0}).

hog(StartMs, #{duration_ms := DurationMs} = Options, {Bursts, Steps, BusyNs} = Done) ->
    InBurst = peer_options:hog_steps(Options),
    Begun = now_ns(),
    case InBurst =:= 0 orelse Begun >= (StartMs + DurationMs) * ?NS_PER_MS of
        true ->
            Done;
        false ->
            Did = burst(InBurst, 0),
            Busy = now_ns() - Begun,
            hog_pause(StartMs, Bursts + 1, Options),
            hog(StartMs, Options, {Bursts + 1, Steps + Did, BusyNs + Busy})
    end.

burst(0, Did) ->
    Did;
burst(Left, Did) ->
    spin(?STEP_NS),
    burst(Left - 1, Did + 1).

hog_pause(StartMs, Bursts, #{scenario := latency}) -> sleep_until(StartMs + Bursts * ?HOG_PERIOD_MS);
hog_pause(_StartMs, _Bursts, _Options) -> timer:sleep(?HOG_PAUSE_MS).

check_hog({Bursts, Steps, BusyNs}, Options) ->
    InBurst = peer_options:hog_steps(Options),
    check(
        Steps =:= Bursts * InBurst andalso BusyNs >= Steps * ?STEP_NS andalso (Bursts > 0) =:= (InBurst > 0),
        "the hog did ~b of ~b steps in ~b ns",
        [Steps, Bursts * InBurst, BusyNs]
    ).

%% Deadlines lie at whole milliseconds, where timers fire: elsewhere up to 1 ms of lateness would say
%% only where the start happened to fall.
start_ms() ->
    erlang:monotonic_time(millisecond).

%% run(Options) -> {Name, Samples, Values, Verification}, once it has seen that all work was done.
run(#{scenario := starvation, duration_ms := DurationMs} = Options) ->
    StartMs = start_ms(),
    EndNs = (StartMs + DurationMs) * ?NS_PER_MS,
    Probe = async(fun() -> probe(StartMs + 1, fun() -> EndNs end, []) end),
    Hog = async(fun() -> hog(StartMs, Options) end),
    Lateness = await(Probe),
    {Bursts, Steps, _} = Hogged = await(Hog),
    ElapsedNs = now_ns() - StartMs * ?NS_PER_MS,
    check_probe(Lateness, DurationMs * ?NS_PER_MS),
    check_hog(Hogged, Options),
    {probe_lateness, Lateness,
        [{hog_steps, Steps}, {hog_bursts, Bursts}, {probes, length(Lateness)}, {elapsed_ms, ElapsedNs / ?NS_PER_MS}],
        io_lib:format(
            "each of the hog's ~b bursts did its ~b steps, preempted by reductions in either variant; "
            "the probe fired once for each of ~b deadlines",
            [Bursts, peer_options:hog_steps(Options), length(Lateness)]
        )};
run(#{scenario := storm, tasks := Tasks}) ->
    Parent = self(),
    Ran = counters:new(Tasks, [atomics]),
    %% 1: tasks that have not finished; 2: when the last one had, or a time that never comes.
    State = atomics:new(2, [{signed, true}]),
    atomics:put(State, 1, Tasks),
    atomics:put(State, 2, 1 bsl 62),
    StartMs = start_ms(),
    Probe = async(fun() -> probe(StartMs + 1, fun() -> atomics:get(State, 2) end, []) end),
    %% Its timer is set before the storm: the queue is first come, first served.
    erlang:yield(),
    lists:foreach(
        fun(Task) ->
            spawn_link(fun() ->
                spin(?STEP_NS),
                counters:add(Ran, Task, 1),
                atomics:sub_get(State, 1, 1) =:= 0 andalso (Parent ! ran)
            end)
        end,
        lists:seq(1, Tasks)
    ),
    PostedNs = now_ns() - StartMs * ?NS_PER_MS,
    receive
        ran -> ok
    end,
    EndNs = now_ns(),
    atomics:put(State, 2, EndNs),
    ElapsedNs = EndNs - StartMs * ?NS_PER_MS,
    Lateness = await(Probe),
    Once = length([Task || Task <- lists:seq(1, Tasks), counters:get(Ran, Task) =:= 1]),
    check(Once =:= Tasks, "~b of ~b tasks ran exactly once", [Once, Tasks]),
    check_probe(Lateness, ElapsedNs),
    {probe_lateness, Lateness,
        [
            {tasks, Once},
            {probes, length(Lateness)},
            {posted_ms, PostedNs / ?NS_PER_MS},
            {elapsed_ms, ElapsedNs / ?NS_PER_MS}
        ],
        io_lib:format("each of ~b tasks ran exactly once; the probe fired once for each of ~b deadlines", [
            Once, length(Lateness)
        ])};
run(#{scenario := latency} = Options) ->
    Parent = self(),
    Arrivals = peer_options:arrivals(Options),
    StartMs = start_ms(),
    Hog = async(fun() -> hog(StartMs, Options) end),
    Source = async(fun() -> arrivals(Parent, StartMs, 1, Arrivals, Options) end),
    Latencies = [
        receive
            {request, Number, Latency} -> Latency
        end
     || Number <- lists:seq(1, Arrivals)
    ],
    Arrivals = await(Source),
    {Bursts, Steps, _} = Hogged = await(Hog),
    ElapsedNs = now_ns() - StartMs * ?NS_PER_MS,
    check(lists:min(Latencies) >= ?REQUEST_NS, "a request was not completed", []),
    check_hog(Hogged, Options),
    {latency, Latencies,
        [
            {arrivals, Arrivals},
            {completions, length(Latencies)},
            {hog_steps, Steps},
            {hog_bursts, Bursts},
            {elapsed_ms, ElapsedNs / ?NS_PER_MS}
        ],
        io_lib:format(
            "each of ~b arrivals was completed once; each of the hog's ~b bursts did its ~b steps, "
            "preempted by reductions in either variant",
            [Arrivals, Bursts, peer_options:hog_steps(Options)]
        )}.

%% Starts a process for each arrival, at the first whole millisecond at which it is due.
arrivals(_Parent, _StartMs, Number, Arrivals, _Options) when Number > Arrivals ->
    Arrivals;
arrivals(Parent, StartMs, Number, Arrivals, Options) ->
    AfterNs = peer_options:arrival_due_ns(Number, Options),
    DueNs = StartMs * ?NS_PER_MS + AfterNs,
    now_ns() < DueNs andalso sleep_until(StartMs + (AfterNs + ?NS_PER_MS - 1) div ?NS_PER_MS),
    spawn_link(fun() ->
        spin(?REQUEST_NS),
        Parent ! {request, Number, now_ns() - DueNs}
    end),
    arrivals(Parent, StartMs, Number + 1, Arrivals, Options).

label() ->
    Release = erlang:system_info(otp_release),
    case file:read_file(filename:join([code:root_dir(), "releases", Release, "OTP_VERSION"])) of
        {ok, Version} -> string:trim(Version);
        {error, _} -> Release
    end.

print(#{scenario := Scenario} = Options, {Name, Samples, Values, Verification}) ->
    %% Not through io: what it could not write, it does not report.
    Written = file:write_file(
        "/dev/stdout",
        io_lib:format(
            "{\"arm\":\"erlang\",\"label\":\"Erlang/OTP ~s\",\"scenario\":\"~s\",\"variant\":\"~s\","
            "\"samples_ns\":{\"~s\":[~s]},\"values\":{~s},\"verified\":true,\"verification\":\"~s\"}~n",
            [
                label(),
                Scenario,
                peer_options:variant(Options),
                Name,
                lists:join(",", [integer_to_list(Sample) || Sample <- Samples]),
                lists:join(",", [io_lib:format("\"~s\":~w", [Key, Value]) || {Key, Value} <- Values]),
                Verification
            ]
        ),
        [append]
    ),
    check(Written =:= ok, "could not write the result: ~0p", [Written]).

complain(Sentence, Status) ->
    io:put_chars(standard_error, ["peer_erlang: ", Sentence, "\n"]),
    Status.

%% The run is a process of its own, so that this one sees it end when one that is linked to it fails.
main() ->
    {_, Run} = spawn_monitor(fun() ->
        Options = peer_options:parse(init:get_plain_arguments()),
        print(Options, run(Options))
    end),
    receive
        {'DOWN', Run, process, _, normal} -> halt(0);
        {'DOWN', Run, process, _, {usage, Sentence}} -> halt(complain(Sentence, 2));
        {'DOWN', Run, process, _, {failed, Sentence}} -> halt(complain(Sentence, 1));
        {'DOWN', Run, process, _, Reason} -> halt(complain(io_lib:format("the run failed: ~0p", [Reason]), 1))
    end.
