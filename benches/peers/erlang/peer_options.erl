%% SPDX-License-Identifier: BSL-1.0
-module(peer_options).

-export([parse/1, variant/1, hog_steps/1, arrivals/1, arrival_due_ns/2]).

%% parse(Words) -> Options, a map; or exits with {usage, Sentence}.
parse([Scenario | Words]) when Scenario =:= "starvation"; Scenario =:= "storm"; Scenario =:= "latency" ->
    Defaults = #{
        scenario => list_to_atom(Scenario),
        workers => 1,
        duration_ms => 1000,
        hog => cooperative,
        hog_ms => case Scenario of "latency" -> 20; _ -> 50 end,
        rate => 2000,
        tasks => 20000
    },
    parse(Words, Defaults);
parse(Words) ->
    usage("the scenario must be starvation, storm or latency, and not ~ts", [quoted(Words)]).

parse([], Options) ->
    Options;
parse(["--workers" | Rest], Options) ->
    whole("--workers", workers, 1, 2, 1, Rest, Options);
parse(["--duration-ms" | Rest], Options) ->
    whole("--duration-ms", duration_ms, 10, 600000, 1, Rest, Options);
parse(["--seconds" | Rest], Options) ->
    whole("--seconds", duration_ms, 1, 600, 1000, Rest, Options);
parse(["--hog-ms" | Rest], #{scenario := latency} = Options) ->
    whole("--hog-ms", hog_ms, 0, 100, 1, Rest, Options);
parse(["--hog-ms" | Rest], Options) ->
    whole("--hog-ms", hog_ms, 0, 10000, 1, Rest, Options);
parse(["--rate" | Rest], Options) ->
    whole("--rate", rate, 100, 20000, 1, Rest, Options);
parse(["--tasks" | Rest], Options) ->
    whole("--tasks", tasks, 1000, 200000, 1, Rest, Options);
parse(["--hog", "cooperative" | Rest], Options) ->
    parse(Rest, Options#{hog := cooperative});
parse(["--hog", "uncooperative" | Rest], Options) ->
    parse(Rest, Options#{hog := uncooperative});
parse(["--hog" | Rest], _Options) ->
    usage("--hog must be cooperative or uncooperative, and not ~ts", [quoted(Rest)]);
parse(Words, _Options) ->
    usage("there is no option ~ts", [quoted(Words)]).

whole(Name, Key, Least, Most, Unit, Words, Options) ->
    try Words =/= [] andalso list_to_integer(hd(Words)) of
        Number when is_integer(Number), Number >= Least, Number =< Most ->
            parse(tl(Words), Options#{Key := Number * Unit});
        _ ->
            not_whole(Name, Least, Most, Words)
    catch
        error:badarg -> not_whole(Name, Least, Most, Words)
    end.

not_whole(Name, Least, Most, Words) ->
    usage("~s must be a whole number from ~b to ~b, and not ~ts", [Name, Least, Most, quoted(Words)]).

usage(Format, Values) ->
    exit({usage, io_lib:format(Format, Values)}).

%% The first word, printable whatever is in it.
quoted([]) ->
    "\"\"";
quoted([{error, Read, Rest} | _]) ->
    %% Not in the locale's encoding.
    quoted([Read ++ binary_to_list(Rest)]);
quoted([Word | _]) ->
    [$", [quoted_character(C) || C <- Word], $"].

quoted_character(C) when C >= 32, C < 127 -> C;
quoted_character(C) -> io_lib:format("\\x{~.16b}", [C]).

variant(#{scenario := storm, workers := Workers}) -> io_lib:format("tasks/~b", [Workers]);
variant(#{hog := Hog, workers := Workers}) -> io_lib:format("~s/~b", [Hog, Workers]).

%% In a burst: steps of 10 us.
hog_steps(#{hog_ms := Ms}) -> Ms * 100.

arrivals(#{duration_ms := Ms, rate := Rate}) -> Ms * Rate div 1000.

%% When the arrival with this number, from 1, is due, in nanoseconds since the start.
arrival_due_ns(Number, #{rate := Rate}) -> Number * 1000000000 div Rate.
