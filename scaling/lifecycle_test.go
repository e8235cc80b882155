package scaling

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The scripts in testdata tell stories of one target. A script is read top to bottom: prose, and steps. A step is a line
// with a command, "----", and what the lifecycle answered: what it wants done, in order, and how it stands then.
//
//	configure [min= wake= max= concurrency= idle= initial prior= carried services=a,b]
//	at TIME             time passes, up to TIME after the start; alarms go off when they are due
//	activity [held= inflight=]      from now on; what was in flight before has been carried
//	wake, pin TIME, sleep, flushed
//	snapshot [service] [spec= ready=a,b pending=c:running settled failure=REASON]
//	wrote [condemned=a,b] ok|unknown|failed|REASON
//	fenced idle|busy
//	fleet [follows] [unknown] [used] [inflight=]    there are other activators, and so they use the target
//	asked [known=a,b] [before=] ok|busy             what they say; before: to a fence before the last one
//	hold epoch= idle=, unhold OUTCOME epoch= [condemned=a,b]    what the leader says
//	arrived             a request waits because of the fence
//	recalled, confirmed spec= [endpoints=a,b] | failed         what the platform says; "reads": it can be asked to confirm
//	condemn condemned=a,b, look
//
// "go test ./scaling -run Lifecycle -rewrite" writes the answers anew: read the difference.
func TestLifecycle(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("find scripts: %d, %v", len(scripts), err)
	}
	for _, path := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			after := (&script{t: t, life: &lifecycle{}}).run(string(before))
			if flag.Lookup("rewrite").Value.String() == "true" {
				if err := os.WriteFile(path, []byte(after), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if diff := firstDifference(string(before), after); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMain(m *testing.M) {
	flag.Bool("rewrite", false, "write the answers in testdata/*.txt anew")
	os.Exit(m.Run())
}

// script runs one file.
type script struct {
	t        *testing.T
	life     *lifecycle
	now      time.Time
	activity Activity
	fleet    fleetView
	reads    bool            // the platform can be asked
	out      strings.Builder // of one step
}

func (*script) start() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

// run returns the file with the answers that the lifecycle gives.
func (s *script) run(file string) string {
	s.now = s.start()
	var result strings.Builder
	answering := false
	for line := range strings.Lines(file) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case answering && line != "":
			continue // the answer as it was
		case line == "----":
			answering = true
			fmt.Fprintf(&result, "----\n%s", s.out.String())
			continue
		case line != "" && !strings.HasPrefix(line, "#"):
			s.out.Reset()
			s.command(line)
		}
		answering = false
		result.WriteString(line + "\n")
	}
	return result.String()
}

func (s *script) command(line string) {
	s.t.Helper()
	words := strings.Fields(line)
	args := arguments{s.t, line, words[1:]}
	switch words[0] {
	case "configure":
		s.step(event{kind: evConfigured, services: args.keys("services"), policy: policy{
			min: args.int32("min"), wake: args.int32("wake"), max: args.int32("max"),
			idleAfter: args.duration("idle"), initial: args.has("initial"), concurrency: int(args.int32("concurrency")),
			prior: args.int32("prior"), carried: args.has("carried"),
		}})
	case "at":
		s.advance(s.start().Add(args.time(0)))
		s.stand()
	case "activity":
		before := s.activity
		s.activity.Held, s.activity.InFlight = int(args.int32("held")), int(args.int32("inflight"))
		if before.Busy() && !s.activity.Busy() {
			s.activity.Last = s.now
		}
		s.activity.Carried = before.Carried || before.InFlight > 0
	case "snapshot":
		s.step(event{kind: evSnapshot, snapshot: args.snapshot()})
	case "fleet":
		s.fleet = fleetView{exists: true, follows: args.has("follows"), unknown: args.has("unknown"), activity: Activity{
			InFlight: int(args.int32("inflight")), Carried: args.has("carried"),
		}}
		if args.has("used") {
			s.fleet.activity.Last = s.now
		}
	case "reads":
		s.reads = true
	case "look":
		s.step(event{kind: evLook})
	case "asked":
		s.step(event{kind: evAsked, fence: s.life.fence.number - uint64(args.int32("before")), condemned: args.list("known"), err: args.result()})
	case "arrived":
		s.step(event{kind: evArrived})
	case "hold":
		s.step(event{kind: evHold, epoch: Epoch{Seq: uint64(args.int32("epoch"))}, idleFor: args.duration("idle")})
	case "unhold":
		outcomes := map[string]Outcome{"aborted": OutcomeAborted, "slept": OutcomeSlept, "unsure": OutcomeUnsure}
		e := event{kind: evUnhold, epoch: Epoch{Seq: uint64(args.int32("epoch"))}, condemned: args.list("condemned")}
		e.outcome, args.words = outcomes[args.words[0]], args.words[1:]
		s.step(e)
	case "recalled":
		s.step(event{kind: evRecalled, epoch: Epoch{Seq: uint64(args.int32("epoch"))}, reading: args.reading()})
	case "condemn":
		e := event{kind: evCondemn, condemned: args.list("condemned")}
		if living := args.list("living"); living != nil {
			e.living = &living
		}
		s.step(e)
	case "confirmed":
		e := event{kind: evConfirmed, reading: args.reading()}
		if e.reading == nil {
			e.err = errors.New("no answer")
		}
		s.step(e)
	case "wake":
		s.step(event{kind: evWake})
	case "pin":
		s.step(event{kind: evPin, until: s.start().Add(args.time(0))})
	case "sleep":
		s.step(event{kind: evSleep})
	case "flushed":
		s.step(event{kind: evFlushed})
	case "wrote":
		s.step(event{kind: evWrote, condemned: args.list("condemned"), err: args.result()})
	case "fenced":
		s.step(event{kind: evFenced, idle: !args.has("busy") && args.has("idle")})
	default:
		s.t.Fatalf("%s: no such command", line)
	}
	if left := args.words; len(left) > 0 && words[0] != "at" && words[0] != "pin" {
		s.t.Fatalf("%s: what is %q?", line, left)
	}
}

// advance lets the alarms go off that are due until a time.
func (s *script) advance(until time.Time) {
	for n := 0; ; n++ {
		alarm := s.life.alarm()
		if alarm.IsZero() || alarm.After(until) {
			break
		}
		if n == 1000 {
			s.t.Fatalf("a thousand alarms until %v", s.since(alarm))
		}
		if alarm.After(s.now) {
			s.now = alarm
		}
		s.say("%s:", s.since(s.now))
		s.act(event{kind: evTick})
		if next := s.life.alarm(); !next.IsZero() && !next.After(s.now) {
			s.t.Fatalf("the alarm of %s has gone off, and nothing came of it: no other will", s.since(next))
		}
	}
	s.now = until
}

func (s *script) step(e event) {
	outcome := s.act(e)
	if e.kind == evWake || e.kind == evPin {
		s.say("%s", [...]string{"unneeded", "joined", "started"}[outcome])
	}
	s.stand()
}

func (s *script) act(e event) wakeOutcome {
	e.activity, e.fleet = s.activity, s.fleet
	actions, outcome := s.life.step(s.now, e)
	for _, a := range actions {
		switch a.kind {
		case actWrite:
			s.say("write %d", a.replicas)
		case actFence:
			s.say("fence")
		case actAsk:
			if !s.fleet.exists {
				s.act(event{kind: evAsked, fence: a.fence})
				break
			}
			s.say("ask idle=%v", a.idleFor)
		case actEnd:
			if s.fleet.exists {
				s.say("end %s %s", [...]string{"aborted", "slept", "unsure"}[a.outcome], sorted(a.condemned))
			}
		case actReply:
			s.say("reply held=%v age=%v known=%s", a.reply.Held, a.reply.Age, sorted(a.reply.Known))
		case actRevoke:
			if s.fleet.exists {
				s.say("revoke %d", a.epoch.Seq)
			}
		case actFound:
			s.say("found %d %s", a.epoch.Seq, sorted(a.condemned))
		case actRecall:
			s.say("recall %d", a.epoch.Seq)
		case actConfirm:
			if !s.reads {
				s.act(event{kind: evConfirmed})
				break
			}
			s.say("confirm")
		case actLift:
			s.say("lift")
		case actLost:
			s.say("lost")
		case actState:
			s.say("%v -> %v", a.from, a.to)
		case actColdStart:
			w := a.cold.record()
			s.say("cold start %s scale=%v schedule=%v start=%v ready=%v", [...]string{"ready", "failed", "abandoned"}[a.cold.outcome],
				w.Scale, w.Schedule, w.Start, w.Ready)
		case actPublish:
			for _, key := range s.life.services {
				s.say("publish %s", s.view(key))
			}
		}
	}
	return outcome
}

func (s *script) view(key Key) string {
	v := s.life.view(key)
	words := []string{key.Name}
	for _, e := range v.Ready {
		words = append(words, e.ID)
	}
	if v.Failure != nil {
		words = append(words, string(v.Failure.Reason))
	}
	if v.Asleep {
		words = append(words, "asleep")
	}
	if v.Typical > 0 {
		words = append(words, "typical="+v.Typical.String())
	}
	return strings.Join(words, " ")
}

// stand says how the lifecycle stands after a step.
func (s *script) stand() {
	l := s.life
	line := fmt.Sprintf("= %v spec=%d", l.state, l.spec)
	if len(l.condemned) > 0 {
		line += " condemned=" + sorted(slices.Collect(maps.Keys(l.condemned)))
	}
	if l.held != nil {
		line += fmt.Sprintf(" holding=%d", l.held.epoch.Seq)
	}
	if l.contended {
		line += " contended"
	}
	if alarm := l.alarm(); !alarm.IsZero() {
		line += " alarm=" + s.since(alarm)
	}
	s.say("%s", line)
}

func sorted(ids []string) string {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	return strings.Join(ids, ",")
}

func (s *script) since(at time.Time) string { return at.Sub(s.start()).String() }

func (s *script) say(format string, args ...any) { fmt.Fprintf(&s.out, format+"\n", args...) }

// arguments are a command's words; each is taken by who understands it.
type arguments struct {
	t     *testing.T
	line  string
	words []string
}

// value takes name=value.
func (a *arguments) value(name string) string {
	for i, w := range a.words {
		if v, ok := strings.CutPrefix(w, name+"="); ok {
			a.words = slices.Delete(a.words, i, i+1)
			return v
		}
	}
	return ""
}

func (a *arguments) has(word string) bool {
	i := slices.Index(a.words, word)
	if i >= 0 {
		a.words = slices.Delete(a.words, i, i+1)
	}
	return i >= 0
}

func (a *arguments) int32(name string) int32 {
	v := a.value(name)
	if v == "" {
		return 0
	}
	n, err := strconv.ParseInt(v, 10, 32)
	a.check(err)
	return int32(n)
}

func (a *arguments) duration(name string) time.Duration {
	v := a.value(name)
	if v == "" {
		return 0
	}
	d, err := time.ParseDuration(v)
	a.check(err)
	return d
}

func (a *arguments) time(i int) time.Duration {
	d, err := time.ParseDuration(a.words[i])
	a.check(err)
	return d
}

func (a *arguments) list(name string) []string {
	v := a.value(name)
	if v == "" {
		return nil
	}
	return strings.Split(v, ",")
}

func (a *arguments) keys(name string) (keys []Key) {
	for _, n := range a.list(name) {
		keys = append(keys, Key{"web", n})
	}
	if keys == nil {
		keys = []Key{{"web", "shop"}}
	}
	return keys
}

func (a *arguments) failure(reason string) *Failure { return &Failure{Reason: Reason(reason)} }

func (a *arguments) snapshot() *Endpoints {
	sn := &Endpoints{Service: Key{"web", "shop"}, Settled: a.has("settled")}
	if sn.Spec = a.int32("spec"); sn.Spec < -1 {
		a.t.Fatalf("%s: spec must be -1 or more", a.line)
	}
	for _, id := range a.list("ready") {
		sn.Ready = append(sn.Ready, Endpoint{ID: id})
	}
	for _, p := range a.list("pending") {
		id, stage, _ := strings.Cut(p, ":")
		stages := map[string]Stage{"": StageCreated, "scheduled": StageScheduled, "running": StageRunning}
		sn.Pending = append(sn.Pending, Pending{ID: id, Stage: stages[stage]})
	}
	if reason := a.value("failure"); reason != "" {
		sn.Failure = a.failure(reason)
	}
	if len(a.words) > 0 {
		sn.Service.Name, a.words = a.words[0], a.words[1:]
	}
	return sn
}

// result is the error of a write: "failed" may pass, "unknown" may have been recorded, and any other is final.
func (a *arguments) result() error {
	word := a.words[0]
	a.words = nil
	switch word {
	case "ok":
		return nil
	case "busy":
		return ErrBusy
	case "failed", "unknown":
		return errors.New(word)
	}
	return fmt.Errorf("scale: %w", a.failure(word))
}

// reading is what the platform says, or nil if it says nothing.
func (a *arguments) reading() *Reading {
	if a.has("failed") {
		return nil
	}
	return &Reading{Spec: a.int32("spec"), Endpoints: a.list("endpoints")}
}

func (a *arguments) check(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatalf("%s: %v", a.line, err)
	}
}

// firstDifference tells where two files part, or nothing.
func firstDifference(want, got string) string {
	wants, gots := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(wants), len(gots)) {
		w, g := "(the end)", "(the end)"
		if i < len(wants) {
			w = wants[i]
		}
		if i < len(gots) {
			g = gots[i]
		}
		if w != g {
			return fmt.Sprintf("line %d: got\n\t%s\nwant\n\t%s\nall of it:\n%s", i+1, g, w, got)
		}
	}
	return ""
}
