package apptest

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
)

func TestBinaryIsBuiltOnce(t *testing.T) {
	t.Setenv("DORMOUSE_TEST_APP", "")
	first, err := os.Stat(Binary(t))
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.Stat(Binary(t))
	if err != nil {
		t.Fatal(err)
	}
	if !first.ModTime().Equal(second.ModTime()) || first.Mode().Perm()&0o100 == 0 {
		t.Errorf("first %v %v, then %v", first.ModTime(), first.Mode(), second.ModTime())
	}
}

func TestBinaryMayBePrebuilt(t *testing.T) {
	t.Setenv("DORMOUSE_TEST_APP", "/prebuilt/app")
	if path := Binary(t); path != "/prebuilt/app" {
		t.Errorf("got %s", path)
	}
}

func TestStartReturnsWhenTheAppListens(t *testing.T) {
	app := Start(t, "--listen-delay=50ms")
	c, err := net.Dial("tcp", app.Addr)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestTheEnvironmentDoesNotLeakIntoTheApp(t *testing.T) {
	t.Setenv("PORT", "1")
	t.Setenv("APP_CRASH_AT_START", "3")
	Start(t)
}

func TestTheAppEndsWithItsTest(t *testing.T) {
	var app *App
	t.Run("owner", func(t *testing.T) { app = Start(t, "--ignore-sigterm") })
	if err := app.Signal(syscall.Signal(0)); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("still there: %v", err)
	}
	if code := app.ExitCode(); code != -1 {
		t.Errorf("status %d", code)
	}
}
