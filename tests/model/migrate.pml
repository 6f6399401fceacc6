/*
 * Who runs the guest when it migrates: the protocol of src/vm/migrate/owner.c with everything that can go wrong. The line
 * loses what is on it when it is cut, at any moment; either process is killed at any moment; the receiver's supervisor
 * can be asked, or not. Checked with spin by tests/model/check.sh:
 *
 *   never two   the guest never runs at both ends, also when the source's process is killed and `start` takes its record
 *   lost        when nobody was killed and nothing is under way any more, it runs somewhere, or the source says UNDECIDED
 *               (and that only if the line was cut and the supervisor could not be asked)
 */
mtype = { STATE, READY, GO, RUNNING, FAILED };
mtype:source = { OURS, HELD, GIVEN, SERVING, UNDECIDED, DEAD };
mtype:word = { OPEN, RAN, REFUSED };

chan to_there = [3] of { mtype };
chan to_here = [3] of { mtype };

bool cut = false;            /* the line is gone for good */
bool deaf = false;           /* nor can the supervisor be reached */
mtype:source here = OURS;
bool here_runs = true;
bool there_runs = false, there_alive = true, there_done = false;
mtype:word claim = OPEN;
bool killed = false, source_through = false;
bool noted_away = false; /* what is written down at the source */

#define TWO (here_runs && there_runs)

/* The source's director. */
active proctype source()
{
    {
    /* Rounds: anything may end them, and the guest just runs on. */
    if
    :: true
    :: cut -> goto end
    :: true -> goto end /* cancelled, time over */
    fi;
    here_runs = false;
    here = HELD;
    if
    :: !cut -> to_there!STATE
    :: cut -> goto resume
    fi;
    if
    :: to_here?READY
    :: to_here?FAILED -> goto resume
    :: cut -> goto resume
    :: !there_alive && empty(to_here) -> goto resume /* the connection ends */
    :: true -> goto resume /* it takes too long */
    fi;
    /* GIVEN before the first byte of GO is written, and written down before that. */
    noted_away = true;
    here = GIVEN;
    if
    :: !cut -> to_there!GO
    :: cut
    fi;
    if
    :: to_here?RUNNING -> here = SERVING; goto end
    :: to_here?FAILED -> here = HELD; goto resume
    :: cut
    :: !there_alive && empty(to_here)
    :: true /* no answer in time */
    fi;
    here = UNDECIDED;
    if
    :: !deaf ->
       atomic {
           if
           :: claim == OPEN -> claim = REFUSED
           :: else
           fi
       };
       if
       :: claim == RAN -> here = SERVING; goto end
       :: claim == REFUSED -> here = HELD; goto resume
       fi
    :: deaf -> goto end /* stands still, and asks a person */
    fi;
resume:
    noted_away = false;
    here = OURS;
    here_runs = true;
end:
    source_through = true
    } unless { here == DEAD };
    source_through = true
}

/* The destination. It sees a cut line as an end, but what came before that counts. */
active proctype destination()
{
    if
    :: to_there?STATE
    :: cut && empty(to_there) -> goto refuse
    :: (here == OURS || here == DEAD) && empty(to_there) -> goto refuse /* CANCEL, or the connection's end */
    fi;
    if
    :: !cut -> to_here!READY
    :: !cut -> to_here!FAILED; goto refuse /* the state is bad */
    :: cut -> goto refuse
    fi;
    if
    :: to_there?GO
    :: cut && empty(to_there) -> goto refuse
    :: (here == OURS || here == DEAD) && empty(to_there) -> goto refuse
    fi;
    atomic {
        if
        :: claim == OPEN && there_alive -> claim = RAN
        :: else -> goto refuse
        fi
    };
    if
    :: there_alive -> there_runs = true
    :: else -> goto end
    fi;
    if
    :: !cut -> to_here!RUNNING
    :: cut
    fi;
    goto end;
refuse:
    atomic {
        if
        :: claim == OPEN -> claim = REFUSED
        :: else
        fi
    };
end:
    there_done = true
}

/* Cuts lose what is on the line, in both directions and at any time. */
active proctype cable()
{
    if
    :: true -> skip
    :: true ->
       atomic {
           cut = true;
           do
           :: nempty(to_there) -> to_there?_
           :: nempty(to_here) -> to_here?_
           :: empty(to_there) && empty(to_here) -> break
           od
       };
       if
       :: deaf = true
       :: skip
       fi
    fi
}

#ifdef KILLS
/* kill -9 of the destination: it runs nothing more, and says nothing more. What it has said may still come. */
active proctype killer()
{
    if
    :: skip
    :: atomic { there_alive = false; there_runs = false; killed = true }
    fi
}

/* kill -9 of the source, and `start` of what it leaves; it is not forced. */
active proctype starter()
{
    if
    :: skip
    :: atomic { here = DEAD; here_runs = false; killed = true };
       if
       :: !noted_away -> here_runs = true
       :: else
       fi
    fi
}
#endif

/* Interleaved with every step of the others: at no moment do both run. */
active proctype never_two()
{
    assert(!TWO)
}

/* When source and destination are through: it runs somewhere, unless it was killed or a person is asked. */
active proctype not_lost()
{
    source_through && there_done;
    assert(here_runs || there_runs || killed || here == UNDECIDED);
    assert(here != UNDECIDED || deaf)
}
