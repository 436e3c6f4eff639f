//! What the tour says: of each step what will happen and why, and afterwards what there was to see. Numbers in it are those
//! that were measured.

#![forbid(unsafe_code)]

/// A step, before it happens.
#[derive(Debug)]
pub(super) struct Chapter {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
}

pub(super) const LISTEN: Chapter = Chapter {
    name: "listen",
    text: "A server asks the kernel for a socket that listens at a port. From then on the kernel answers those who call, \
           completes their handshakes by itself, and queues them until the program calls accept. Nothing is sent: \
           nobody has to know. The state of RFC 9293 is LISTEN.",
};

pub(super) const LISTEN_SEEN: &str = "The queues of a listener count connections: RQ wait to be accepted, of the SQ that may. TASK is the task that waits in \
     accept; it blocks no thread, for a task that waits is set aside until the kernel has something for it.";

pub(super) const DIAL: Chapter = Chapter {
    name: "dial",
    text: "A client dials. Its kernel sends SYN and is in SYN-SENT; the server's answers SYN,ACK and is in SYN-RECEIVED; \
           the client's ACK completes the handshake, and both ends are ESTABLISHED. The options of the two SYNs say \
           what each end can do, and no later segment may.",
};

pub(super) const TALK: Chapter = Chapter {
    name: "talk",
    text: "The server sends the time; the client reads it and says hello. Each end has two tasks on its one connection: \
           one waits in read while the other writes. Bytes are counted from 1 in each direction, and ACK n says that \
           all before byte n have arrived.",
};

pub(super) const TALK_SEEN: &str = "All queues are empty: RQ is what arrived and was not read, SQ what was written and is not acknowledged. TASK shows who \
     waits in read at either end.";

pub(super) const FILL: Chapter = Chapter {
    name: "buffers fill",
    text: "The client stops reading, and the server sends a lot. A write copies as much as the kernel's send buffer has \
           room for; what is sent waits in the client's receive buffer. When that is full, the client's kernel \
           announces a window of zero: send no more. Then the send buffer fills too, and the task that writes is parked.",
};

pub(super) const DRAIN: Chapter = Chapter {
    name: "buffers drain",
    text: "The client reads on. Its window opens again, the server's kernel sends what had to wait, the send buffer has \
           room, and the task that writes is woken to write the rest.",
};

pub(super) const CLOSE: Chapter = Chapter {
    name: "the server closes",
    text: "The server closes, and its kernel sends FIN: no more will come. It is in FIN-WAIT-1 until that is acknowledged, \
           then in FIN-WAIT-2. The client's kernel acknowledges by itself and is in CLOSE-WAIT until its program \
           closes too.",
};

pub(super) const CLOSE_SEEN: &str = "The FIN ended the client's reads, with end of file. It did not end its writes: one would still succeed, be answered by \
     RST because nobody is there to read it, and only the next would fail (EPIPE). CLOSE-WAIT lasts until the program \
     closes; one that stays has been forgotten, and towpath watch shows it in red after five seconds.";

pub(super) const CLOSE_TOO: Chapter = Chapter {
    name: "the client closes",
    text: "The client closes too. Its FIN puts it into LAST-ACK; with the server's ACK its end is gone. The end that closed \
           first, the server's, is in TIME-WAIT for a minute, so that a late segment of this connection is not taken \
           for one of the next between the same ports.",
};

pub(super) const CLOSE_TOO_SEEN: &str = "TIME-WAIT belongs to no program any more. It would keep a server from listening again at its port for that minute, \
     but for SO_REUSEADDR, which towpath's listeners set.";

pub(super) const REFUSED: Chapter = Chapter {
    name: "refused",
    text: "A client dials a port at which nobody listens. The kernel answers its SYN with RST. Where something on the way \
           drops the SYN instead, it is sent again and again, until the one who dials gives up.",
};

pub(super) const REFUSED_SEEN: &str = "The table has nothing to show of it. Who draws segments cannot know that nobody listens, and takes it that somebody does until \
     the RST says otherwise. The error names each step that was taken; towpath dial exits with 3 then.";

/// What to type next.
pub(super) const NEXT: [(&str, &str); 5] = [
    ("towpath serve 8330", "a server that shows who calls"),
    ("towpath dial 8330", "in another terminal: talk to it"),
    ("towpath watch 8330", "the table, as it changes"),
    ("sudo towpath trace 8330", "the segments"),
    ("towpath tasks", "what its tasks wait for"),
];
