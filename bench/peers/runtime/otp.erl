%% Owns Erlang/OTP's side: plain processes for casts and ping-pong (its fastest form), gen_server for asks and for
%% starting and stopping, and a second node over loopback for the distributed lines.
-module(otp).
-behaviour(gen_server).
-export([main/1, receiver/0, init/1, handle_call/3, handle_cast/2]).

-define(BURST, 5000).
-define(WINDOW, 100).
-define(GO_US_MIN, 20000).
-define(STREAM_GO_US_MIN, 200000).
-define(WARM_UP_SHARE, 0.4).

main([Measure, Seconds | Rest]) ->
    Us = round(list_to_float(Seconds) * 1000000),
    {First, Go} = measure(list_to_atom(Measure), Rest),
    GoUs = if Measure =:= "remoteCast" -> ?STREAM_GO_US_MIN; true -> ?GO_US_MIN end,
    Count = warm_up(First, Go, GoUs, now_us() + round(Us * ?WARM_UP_SHARE)),
    Start = now_us(),
    {Operations, ElapsedUs} = run(Count, Go, Start, Us, 0),
    io:format("{\"values\":{\"perSecond\":~.3f},\"version\":\"~s\"}~n",
              [Operations * 1.0e6 / ElapsedUs, erlang:system_info(otp_release)]),
    halt(0).

now_us() -> erlang:monotonic_time(microsecond).

warm_up(Count, Go, GoUs, End) ->
    Start = now_us(),
    Go(Count),
    Now = now_us(),
    if Now >= End -> Count;
       Now - Start < GoUs -> warm_up(Count * 2, Go, GoUs, End);
       true -> warm_up(Count, Go, GoUs, End)
    end.

run(Count, Go, Start, Us, Operations) ->
    Go(Count),
    Elapsed = now_us() - Start,
    if Elapsed < Us -> run(Count, Go, Start, Us, Operations + Count);
       true -> {Operations + Count, Elapsed}
    end.

measure(cast, _) ->
    Receiver = spawn(fun() -> burst_receiver(0) end),
    Sender = spawn(fun() -> burst_sender(Receiver) end),
    {?BURST, fun(Count) ->
        Sender ! {go, self(), Count},
        receive done -> ok end
    end};
measure(pingPong, _) ->
    {64, fun(Count) ->
        Main = self(),
        Pong = spawn_link(fun() -> half(Main) end),
        Ping = spawn_link(fun() -> half(Main) end),
        Ping ! {Pong, Count, 0},
        receive done -> ok end,
        unlink(Ping), unlink(Pong), exit(Ping, kill), exit(Pong, kill)
    end};
measure(ask, _) ->
    {ok, Adder} = gen_server:start(?MODULE, [], []),
    {64, fun(Count) -> asks(Adder, Count) end};
measure(askWindow, _) ->
    {ok, Adder} = gen_server:start(?MODULE, [], []),
    {?WINDOW, fun(Count) ->
        Refs = [spawn_monitor(fun() -> asks(Adder, Count div ?WINDOW) end) || _ <- lists:seq(1, ?WINDOW)],
        [receive {'DOWN', Ref, process, _, normal} -> ok end || {_, Ref} <- Refs]
    end};
measure(spawnStop, _) ->
    {64, fun(Count) -> spawn_stop(Count) end};
measure(spawnStopBare, _) ->
    {64, fun(Count) -> spawn_stop_bare(Count) end};
measure(remoteCast, [Node]) ->
    Receiver = {receiver, connected(Node)},
    Record = record_of(64),
    {5000, fun(Count) ->
        send_many(Receiver, Record, Count),
        Receiver ! {done, self()},
        receive handled -> ok end
    end};
measure(remoteAsk, [Node]) ->
    Peer = connected(Node),
    {64, fun(Count) -> asks({adder, Peer}, Count) end}.

connected(Node) ->
    Peer = list_to_atom(Node),
    connect(Peer, 100),
    Peer.

connect(Peer, 0) -> io:format(standard_error, "no connection to ~p~n", [Peer]), halt(1);
connect(Peer, Left) ->
    case net_kernel:connect_node(Peer) of
        true -> ok;
        _ -> timer:sleep(50), connect(Peer, Left - 1)
    end.

record_of(Size) -> list_to_binary([I rem 256 || I <- lists:seq(1, Size)]).

send_many(_, _, 0) -> ok;
send_many(To, Record, Count) -> To ! Record, send_many(To, Record, Count - 1).

%% What the second node runs.
receiver() ->
    register(receiver, self()),
    {ok, _} = gen_server:start({local, adder}, ?MODULE, [], []),
    io:format("ready~n"),
    count(0).

count(N) ->
    receive
        Bin when is_binary(Bin) -> count(N + 1);
        {done, From} -> From ! handled, count(0)
    end.

burst_sender(Receiver) ->
    receive
        {go, From, Count} -> bursts(Receiver, Count), From ! done, burst_sender(Receiver)
    end.

bursts(_, Left) when Left =< 0 -> ok;
bursts(Receiver, Left) ->
    burst(Receiver, self(), ?BURST),
    receive burst -> ok end,
    bursts(Receiver, Left - ?BURST).

burst(_, _, 0) -> ok;
burst(Receiver, Self, N) -> Receiver ! {note, Self, N}, burst(Receiver, Self, N - 1).

burst_receiver(Handled) ->
    receive
        {note, From, _} when (Handled + 1) rem ?BURST =:= 0 -> From ! burst, burst_receiver(0);
        {note, _, _} -> burst_receiver(Handled + 1)
    end.

half(Main) ->
    receive
        {_, 0, _} -> Main ! done, half(Main);
        {Other, Left, I} -> Other ! {self(), Left - 1, I + 1}, half(Main)
    end.

asks(_, 0) -> ok;
asks(Server, N) -> _ = gen_server:call(Server, {add, N}), asks(Server, N - 1).

spawn_stop(0) -> ok;
spawn_stop(N) ->
    {ok, Pid} = gen_server:start(?MODULE, [], []),
    ok = gen_server:stop(Pid),
    spawn_stop(N - 1).

spawn_stop_bare(0) -> ok;
spawn_stop_bare(N) ->
    {Pid, Ref} = spawn_monitor(fun() -> receive stop -> ok end end),
    Pid ! stop,
    receive {'DOWN', Ref, process, Pid, normal} -> ok end,
    spawn_stop_bare(N - 1).

init(_) -> {ok, 0}.
handle_call({add, I}, _From, State) -> {reply, I + 1, State}.
handle_cast(_, State) -> {noreply, State}.
