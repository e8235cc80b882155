package main

import (
	"io"
	"strings"
	"testing"
	"time"
)

func TestEveryFlagHasAVariableThatItOverrides(t *testing.T) {
	env := map[string]string{
		"PORT": "4711", "APP_LISTEN_DELAY": "3s", "APP_CRASH_AT_START": "7", "APP_IGNORE_SIGTERM": "true", "APP_NAME": "env",
	}
	lookup := func(name string) (string, bool) { value, ok := env[name]; return value, ok }

	cfg, err := parseConfig([]string{"--name=flag"}, lookup, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.addr.String(); got != "127.0.0.1:4711" {
		t.Errorf("address is %s", got)
	}
	if cfg.listenDelay != 3*time.Second || *cfg.crashAtStart != 7 || !cfg.ignoreSIGTERM || cfg.name != "flag" {
		t.Errorf("got %+v", cfg)
	}
}

func TestBadSettingsAreNamed(t *testing.T) {
	none := func(string) (string, bool) { return "", false }
	for _, args := range []string{
		"--port=x", "--port=65536", "--host=localhost", "--host=::1", "--protocol=spdy", "--listen-delay=3", "--crash-at-start=x", "--no-such-flag", "argument",
	} {
		_, err := parseConfig([]string{args}, none, io.Discard)
		flag, _, _ := strings.Cut(strings.TrimLeft(args, "-"), "=")
		if err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s: %v", args, err)
		}
	}
	_, err := parseConfig(nil, func(name string) (string, bool) { return "x", name == "APP_BACKLOG" }, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "APP_BACKLOG") {
		t.Errorf("APP_BACKLOG=x: %v", err)
	}
}
