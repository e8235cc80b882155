package peers_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/dormouse-dev/dormouse/elastiserver/peers"
)

func FuzzUnmarshal(f *testing.F) {
	for _, line := range []string{
		`{"fence":{"epoch":{"term":3,"leader":"a/1","seq":4},"target":{"namespace":"web","kind":"Deployment.apps","name":"shop"},"idleForMs":60000}}`,
		`{"open":{"holds":[{"epoch":{},"target":{}}],"condemned":[{"target":{},"ids":["x"]}],"more":true}}`,
		`{"activity":{"full":true,"targets":[{"target":{"name":"shop"},"busy":true,"ageMs":-1}]}}`,
		`{"outcome":{"living":[]}}`, `{"coldStart":{"tookMs":1}}`, `{"ack":{"known":["a"]}}`, `{"revoke":{}}`, `{"sleep":{"id":1}}`, `{"borrow":{"n":1}}`,
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		m, err := peers.Unmarshal([]byte(line))
		if err != nil {
			if !reflect.DeepEqual(m, peers.Message{}) {
				t.Fatalf("%v, and still there is %+v", err, m)
			}
			return
		}
		out, err := m.Marshal()
		if err != nil {
			if len(line) < peers.MaxLine/8 {
				t.Fatal(err)
			}
			return
		}
		again, err := peers.Unmarshal(out)
		if err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		once, _ := m.Marshal()
		twice, _ := again.Marshal()
		if string(once) != string(twice) {
			t.Fatalf("%s is read as %s", once, twice)
		}
	})
}

func TestWhatNewerVersionsSayIsIgnored(t *testing.T) {
	if _, err := peers.Unmarshal([]byte(`{"sing":{"song":"lullaby"}}`)); !errors.Is(err, peers.ErrUnknownMessage) {
		t.Errorf("got %v", err)
	}
	m, err := peers.Unmarshal([]byte(`{"lead":{"term":3,"mood":"good"},"volume":11}`))
	if err != nil || m.Lead == nil || m.Lead.Term != 3 {
		t.Errorf("got %+v, %v", m, err)
	}
}

func TestWhatNobodySaysIsRefused(t *testing.T) {
	for _, line := range []string{
		"", "x", "[]", `{"lead":3}`, `{"lead":{},"revoke":{}}`, `{"lead":{"term":1}} {}`,
		`{"fence":{"idleForMs":-1}}`, `{"fence":{"idleForMs":9223372036854775807}}`, `{"refuse":{"ageMs":-1}}`,
		`{"refuse":{"ageMs":9223372036854775807}}`, `{"activity":{"targets":[{"ageMs":9223372036854775807}]}}`,
		`{"coldStart":{"tookMs":-1}}`, `{"coldStart":{"tookMs":86400001}}`, `{"borrow":{"n":0}}`, `{"cancel":{"n":-1}}`, `{"revoke":{},"x":"` + strings.Repeat("x", peers.MaxLine) + `"}`,
	} {
		if _, err := peers.Unmarshal([]byte(line)); err == nil || errors.Is(err, peers.ErrUnknownMessage) {
			t.Errorf("%.80s: %v", line, err)
		}
	}
}

func TestALineHasABound(t *testing.T) {
	m := peers.Message{Ack: &peers.Ack{Known: []string{strings.Repeat("x", peers.MaxLine)}}}
	if _, err := m.Marshal(); err == nil {
		t.Error("it has none")
	}
}

func TestTheIDOfAProcessTellsItsPod(t *testing.T) {
	if got := peers.NewPeerID("3f2a", "x1").Pod(); got != "3f2a" {
		t.Errorf("got %q", got)
	}
}
