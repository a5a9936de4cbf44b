#!/usr/bin/env python3
"""Plants faults in the hub, one by one, and checks that its seeded simulation finds each.

    tests/planted/run.py            plants every fault
    tests/planted/run.py WORD...    those whose name holds one of the words

Works on the committed tree, in a worktree of its own below target/. Exit status 1 where a fault is not found, or where the
source does not contain the text that it replaces: then change the fault, do not drop it.
"""

import os
import resource
import subprocess
import sys
import time

# Name, file below src/hub, the text that is replaced (once), and what stands there instead.
FAULTS = [
    ("a letter is lost when the inbox is full", "outgoing.rs",
     "            backlog.push_back(Parcel::Mail(mail));\n            self.waiting += 1;\n",
     "            drop((backlog, mail));\n"),
    ("a letter overtakes the backlog", "outgoing.rs",
     "if backlog.is_empty() { post.offer(to, mail).err() } else { Some(mail) }",
     "post.offer(to, mail).err()"),
    ("a publish is settled before other shards have taken it", "publishing.rs",
     "port.mail_after(&others, asker.shard,",
     "port.mail_after(&[], asker.shard,"),
    ("the excluded connection of another shard receives the message", "publishing.rs",
     "exclude.filter(|member| member.shard == shard)",
     "exclude.filter(|_| false)"),
    ("the excluded connection is counted", "publishing.rs",
     "subscribers as i64 - i64::from(was_excluded)",
     "subscribers as i64"),
    ("a slice is cut at the wrong place", "audience/delivery.rs",
     "let Subscriber { slot, from: start } = entry.subscriber(position);",
     "let (slot, start) = (entry.subscriber(position).slot, 0);"),
    ("messages overtake the subscribed that waits", "audience/delivery.rs",
     "if self.held_back | self.muted > 0 &&",
     "if self.muted > 0 &&"),
    ("a page is never closed", "audience/delivery.rs",
     "        self.pages.release(page);\n    }\n",
     "    }\n"),
    ("a newcomer receives what was published before it", "audience/membership.rs",
     "let from = entry.page().map_or(0, |page| self.pages.page_len(page));",
     "let from = 0;"),
    ("a subscriber that moves in the list keeps its old position", "audience/membership.rs",
     "            subscription.position = position;\n        }\n        true\n",
     "            let _ = subscription;\n        }\n        true\n"),
    ("a subscriber is kept after its unsubscribed", "audience/membership.rs",
     "let was_subscribed = self.remove_subscriber(member.slot, audience, port);",
     "let was_subscribed = true;"),
    ("a reply does not wait for its place", "audience/replies.rs",
     "        let mut reply = Vec::new();\n        write(&mut reply);\n        replies.push(reply);",
     "        let _ = replies;\n        self.send_now(slot, port, write);"),
    ("a letter for an earlier connection reaches the next one of its slot", "audience/mod.rs",
     "member.generation = (member.generation + 1)",
     "member.generation = (member.generation + 0)"),
    ("a subscriber is counted twice", "channel/directory.rs",
     "Some((_, count)) => *count += 1,",
     "Some((_, count)) => *count += 2,"),
    ("a fence opens one shard early", "mod.rs",
     "if self.fences[fence as usize] < self.placement.shards() {",
     "if self.fences[fence as usize] + 1 < self.placement.shards() {"),
    ("a position of another run is recovered", "channel/memory.rs",
     "since.epoch == Some(self.epoch)",
     "since.epoch.is_some()"),
    ("a replay begins behind a message that is gone", "channel/history.rs",
     "if since < self.floor || since > self.last {",
     "if since > self.last {"),
    ("a greeting is not behind the position of the reply", "channel/memory.rs",
     "offset = messages[*start].offset - 1;",
     "offset = messages[*start].offset;"),
    ("a channel that was forgotten accepts its old positions", "channel/memory.rs",
     "self.watermark = self.watermark.max(history.last());",
     ""),
    ("a replay has messages that were not for the client", "audience/replay.rs",
     "!not_for.contains(&exclude)",
     "not_for.len() < 9 || exclude.slot == 0"),
    ("a replay leaves its last message out", "audience/replay.rs",
     "frame.offset <= last.offset",
     "frame.offset < last.offset"),
    ("messages between two replays of a turn are left out", "audience/replay.rs",
     "newest.map_or(*start, |newest| messages.partition_point(|kept| kept.offset <= newest))",
     "newest.map_or(*start, |newest| messages.partition_point(|kept| kept.offset <= newest).max(*start))"),
    ("other shards deliver a message without its offset", "publishing.rs",
     "Delivery { channel: name.clone(), hash, payload, offset, exclude, read_at }",
     "Delivery { channel: name.clone(), hash, payload, offset: None, exclude, read_at }"),
    ("a repetition is sent", "channel/dedupe.rs",
     "by_key.find(hash, is_meant).map(|&number| entry(number).first)",
     "by_key.find(hash, is_meant).map(|&number| entry(number).first).filter(|first| first.subscribers > 1)"),
    ("subscribers are not told of a new member", "presence.rs",
     "            self.tell_event(&change.channel, change.hash, event, port);\n        }\n        let others",
     "            let _ = event;\n        }\n        let others"),
    ("keys of messages that are held back are not told apart", "audience/conflation.rs",
     "message.key.filter(|_| slow == Slow::LatestByKey)",
     "message.key.filter(|_| slow != slow)"),
    ("a message overtakes those that are held back", "audience/conflation.rs",
     "if !is_blocked && port.waiting(slot)",
     "if port.waiting(slot)"),
    ("messages are held back for a reader that is not blocked", "audience/conflation.rs",
     "BLOCKED_BYTES.min(self.outbox_bytes_max / 2)",
     "BLOCKED_BYTES.min(self.outbox_bytes_max / 2) / 100"),
    ("a newer message keeps the place of the one that it replaces", "audience/compacted_log.rs",
     "        *newest = number;\n",
     "        let number = *newest;\n"),
    ("a connection is sent what was held back for others alone", "audience/conflation.rs",
     "last.audience == audience && last.numbers.end == number => last.numbers.end += 1,",
     "last.audience == audience => last.numbers.end = number + 1,"),
    ("a message is forgotten once one connection was sent it", "audience/conflation.rs",
     "            0 => drop(",
     "            0.. => drop("),
    ("a client event reaches its sender", "client_events.rs",
     "(shard == sender.shard).then(",
     "(shard != shard).then("),
    ("a client event does not name the user of its sender", "client_events.rs",
     "match self.directory.user_of(&channel, hash, sender) {",
     "match self.directory.user_of(&channel, hash, sender).filter(|_| false) {"),
    ("a message to a user overtakes its signed_in", "users.rs",
     "let opens = (!self.audiences.is_muted(slot)).then_some(membership.audience);",
     "let opens = None;"),
    ("a user that has signed in is another one in presence channels", "requests.rs",
     "return self.user_of(slot).cloned().ok_or(user::NO_CHANNEL_DATA);",
     "return self.users.keys().next().and_then(|&it| self.user_of(it)).cloned().ok_or(user::NO_CHANNEL_DATA);"),
]

ROOT = subprocess.check_output(["git", "rev-parse", "--show-toplevel"], text=True).strip()
TREE = os.path.join(ROOT, "target", "planted")
TEST = ["cargo", "test", "--quiet", "--lib", "hub::simulation"]
# A fault can keep a simulation from coming to rest. Without one it takes ten seconds of CPU time. Time on the clock would not do:
# on a busy machine a run that is slow would count as a fault that was found. The build before is not limited for the same reason.
CPU_SECONDS_MAX = 100


def run(*command, **options):
    return subprocess.run(command, check=True, **options)


def cargo(*more, cpu_seconds_max=resource.RLIM_INFINITY):
    """The exit status and the output."""
    environment = {**os.environ, "CARGO_TARGET_DIR": os.path.join(ROOT, "target", "planted-build")}
    limit = lambda: resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds_max, cpu_seconds_max))
    child = subprocess.run([*TEST, *more], cwd=TREE, env=environment, text=True, preexec_fn=limit,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return child.returncode, child.stdout


def tests_pass():
    status, output = cargo("--no-run")
    if status != 0:
        sys.exit("the fault does not compile:\n" + output)
    status, output = cargo(cpu_seconds_max=CPU_SECONDS_MAX)
    if status != 0 and ("SIGKILL" in output or "SIGXCPU" in output):
        return False, f"no end within {CPU_SECONDS_MAX} s of CPU time"
    panics = [line for line in output.splitlines() if "panicked" in line or "assertion" in line or "left" in line]
    return status == 0, "; ".join(line.strip() for line in panics[:2])[:160]


def main():
    meant = [fault for fault in FAULTS if len(sys.argv) == 1 or any(word in fault[0] for word in sys.argv[1:])]
    subprocess.run(["git", "worktree", "remove", "--force", TREE], cwd=ROOT, capture_output=True)
    run("git", "worktree", "add", "--quiet", "--detach", TREE, "HEAD", cwd=ROOT)
    missed = 0
    try:
        for name, file, old, new in meant:
            path = os.path.join(TREE, "src", "hub", file)
            with open(path) as source:
                text = source.read()
            if text.count(old) != 1:
                sys.exit(f"{name}: {file} has its text {text.count(old)} times:\n{old}")
            with open(path, "w") as source:
                source.write(text.replace(old, new))
            start = time.monotonic()
            passed, why = tests_pass()
            missed += passed
            print(f"{'MISSED' if passed else 'found '} {name} ({time.monotonic() - start:.0f} s) {why}", flush=True)
            with open(path, "w") as source:
                source.write(text)
    finally:
        run("git", "worktree", "remove", "--force", TREE, cwd=ROOT)
    print(f"{len(meant) - missed} passed, {missed} failed")
    sys.exit(missed > 0)


main()
