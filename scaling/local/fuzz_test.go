package local

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/dormouse-dev/dormouse/scaling"
)

// FuzzParse shows that no file makes the parser panic, that mistakes come with their line, and that what is accepted is
// valid, however it was written.
func FuzzParse(f *testing.F) {
	examples, err := filepath.Glob("../../examples/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, example := range examples {
		text, err := os.ReadFile(example)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for _, text := range []string{
		"services: [{name: shop, process: {command: [shop]}}]",
		"services:\n- &a {name: shop, process: &p {command: [shop, 1]}, routes: [{hosts: [a.b], paths: [/]}]}\n- {name: cart, process: *p}\n",
		"a: &a [*a]", "services: &a [*a]", "? [a]\n: b", "--- a\n--- b", "a: !!binary x", "services: [{name: !x y}]", "\xff",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		// Nothing but the file itself may be read while fuzzing.
		if strings.Contains(string(text), "caFile") {
			t.Skip("names other files")
		}
		file, err := Parse(text, "/srv")
		if err != nil {
			if file != nil || err.Error() == "" {
				t.Errorf("got %v and %v", file, err)
			}
			return
		}
		for i, definition := range file.Services {
			checkDefinition(t, definition)
			for _, other := range file.Services[:i] {
				if other.Service.Key == definition.Service.Key {
					t.Errorf("two services are %s", other.Service.Key)
				}
			}
		}
		if again, err := Parse(text, "/srv"); err != nil || !reflect.DeepEqual(file, again) {
			t.Errorf("read again: %v, %+v; want %+v", err, again, file)
		}
	})
}

func checkDefinition(t *testing.T, d *Definition) {
	s := &d.Service
	if !isLabel(s.Key.Name) || len(s.Key.Name) > maxName || !isLabel(s.Key.Namespace) {
		t.Errorf("the key is %q", s.Key)
	}
	if s.Target != (scaling.Target{Namespace: s.Key.Namespace, Kind: "Process", Name: s.Key.Name}) {
		t.Errorf("the target is %+v", s.Target)
	}
	if r := s.Replicas; r.Min < 0 || r.Wake < 0 || r.Max < 0 || r.Max > 0 && max(r.Min, r.Wake) > r.Max {
		t.Errorf("the replicas are %+v", r)
	}
	if d.limit(max(s.Replicas.Min, s.Replicas.Wake)) != max(s.Replicas.Min, s.Replicas.Wake) {
		t.Errorf("the replicas are %+v with port %d", s.Replicas, d.Process.Port)
	}
	if s.Idle.After < 0 || s.Hold.Timeout < 0 || s.Hold.MaxRequests < 0 || s.Upstream.MaxConcurrency < 0 || d.Process.StopGrace < 0 {
		t.Errorf("something is negative: %+v", d)
	}
	if to := s.Timeouts; to.Dial < 0 || to.ResponseHeader < 0 || to.Idle < 0 || to.Total < 0 {
		t.Errorf("the timeouts are %+v", to)
	}
	if len(d.Process.Command) == 0 || d.Process.Command[0] == "" || d.Process.StopSignal <= 0 || !filepath.IsAbs(d.Process.Dir) {
		t.Errorf("the process is %+v", d.Process)
	}
	if len(s.Routes) == 0 {
		t.Error("there is no route")
	}
	for _, route := range s.Routes {
		for _, host := range route.Hosts {
			if host == "" || host != strings.ToLower(host) || strings.HasSuffix(host, ".") || strings.Contains(host, ":") {
				t.Errorf("a host is %q", host)
			}
		}
		for _, path := range route.Paths {
			if !strings.HasPrefix(path, "/") {
				t.Errorf("a path is %q", path)
			}
		}
	}
}
