package elastiserver

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dormouse-dev/dormouse/metrics"
	"github.com/dormouse-dev/dormouse/scaling"
	"github.com/dormouse-dev/dormouse/scaling/backendtest"
)

const (
	page     = "../docs/api.md"
	pagePort = "127.0.0.1:8012" // of its examples
)

// example is a command of the page and the output that the page shows.
type example struct{ command, output string }

// The examples are run in the order of the page, by a shell and curl, against one server.
func TestTheExamplesOfThePageWork(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("the examples of the page are not tested without curl")
		}
		t.Skip("skipped: the examples of the page are not tested without curl")
	}
	shop := serviceOf("default", "shop")
	w, _ := online(t, shop)
	w.fake.SetWorkload(shop.Key, backendtest.Workload{Deaf: true}) // ready when the page has shown that it is not
	server := serve(t, LoopbackOnly(w.Handler()))
	examples := examplesOf(t)
	if len(examples) < 10 {
		t.Fatalf("the page has only %d examples", len(examples))
	}
	states := w.states(shop.Key)
	for _, e := range examples {
		t.Run(e.command, func(t *testing.T) {
			command := strings.ReplaceAll(e.command, pagePort, server.Listener.Addr().String())
			if strings.Contains(command, "/events") {
				tryStream(t, w, command, e.output, shop.Key)
				return
			}
			printed, err := exec.CommandContext(t.Context(), "sh", "-c", command).Output()
			if err != nil {
				t.Fatal(err)
			}
			out := string(printed)
			wantJSON(t, out, e.output)
			if strings.Contains(out, "started") {
				w.fake.SetReady(shop.Key, true)
				states.await(t, scaling.StateAwake)
			}
		})
	}
}

// tryStream runs an example that does not end: it wakes the service, which sleeps, when the page says so.
func tryStream(t *testing.T, w *world, command, output string, key scaling.Key) {
	t.Helper()
	if err := w.handler.Sleep(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	curl := exec.CommandContext(t.Context(), "sh", "-c", "exec "+command)
	out, err := curl.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := curl.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = curl.Process.Kill()
		_ = curl.Wait() // killed
	}()
	stream := bufio.NewReader(out)
	for i, want := range strings.Split(output, "\n") {
		if want == "id: 2" {
			if _, err := w.Wake(t.Context(), key, metrics.SourceAPI); err != nil {
				t.Fatal(err)
			}
			w.fake.SetReady(key, true)
		}
		got, err := stream.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(want), "…", ".*") + "\n$"
		if ok, err := regexp.MatchString(pattern, got); !ok || err != nil {
			t.Errorf("line %d is %q, the page has %q", i+1, got, want)
		}
	}
}

// examplesOf reads the examples of the page: in blocks marked console, each "$ " begins a command.
func examplesOf(t *testing.T) []example {
	t.Helper()
	var examples []example
	for _, block := range regexp.MustCompile("(?s)```console\n(.*?)```").FindAllStringSubmatch(readPage(t), -1) {
		for _, part := range strings.Split("\n"+block[1], "\n$ ")[1:] {
			command, output, _ := strings.Cut(part, "\n")
			examples = append(examples, example{command, strings.TrimSpace(output)})
		}
	}
	return examples
}

func readPage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// wantJSON compares an answer with what the page shows of it, in which "…" stands for any value.
func wantJSON(t *testing.T, got, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatalf("%v in what the page shows: %s", err, want)
	}
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Fatalf("%v in the answer: %s", err, got)
	}
	if !matches(g, w) {
		t.Errorf("the answer is\n%s, and the page shows\n%s", got, want)
	}
}

func matches(got, want any) bool {
	switch want := want.(type) {
	case string:
		return want == "…" || got == want
	case map[string]any:
		g, ok := got.(map[string]any)
		ok = ok && len(g) == len(want)
		for name, value := range want {
			inner, there := g[name]
			ok = ok && there && matches(inner, value)
		}
		return ok
	case []any:
		return slices.EqualFunc(asList(got), want, matches)
	default:
		return got == want
	}
}

func asList(v any) []any {
	list, _ := v.([]any)
	return list
}

// Every field of every answer is named on the page.
func TestThePageNamesEveryField(t *testing.T) {
	text := readPage(t)
	for _, answer := range []any{services{}, service{}, target{}, failure{}, done{}, change{}, lost{}, problem{}, Response{}} {
		for field := range reflect.TypeOf(answer).Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if !strings.Contains(text, "`"+name+"`") && !strings.Contains(text, `"`+name+`"`) {
				t.Errorf("the page does not name %s of %T", name, answer)
			}
		}
	}
}
