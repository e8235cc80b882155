// Command demo shows what Dormouse does, on one machine: it starts an activator in front of four services that are
// asleep, sends them 200 requests at once, prints a timeline of what became of them, and waits until the services
// sleep again. Then it stays up for the reader to try, until Ctrl-C; with DEMO_ONESHOT=1 it ends by itself, with status 0
// if no request was lost and all services went back to sleep, and 1 otherwise.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

const (
	requests = 200
	idle     = 3 * time.Second

	// patience bounds each step: longer than any step takes, so that a demo that hangs ends with a word.
	patience = time.Minute
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Getenv("DEMO_ONESHOT") == "1")
	interrupted := ctx.Err() != nil
	stop()
	if err != nil && !interrupted {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, oneShot bool) (err error) {
	dir, err := os.MkdirTemp("", "dormouse-demo-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	fmt.Println("Building the activator and the sample server …")
	if err := buildAll(ctx, dir); err != nil {
		return err
	}
	d, err := startActivator(ctx, dir)
	if err != nil {
		return err
	}
	defer func() {
		if stopErr := d.stop(); err == nil {
			err = stopErr
		}
		if err == nil {
			err = os.RemoveAll(dir)
		} else {
			fmt.Fprintln(os.Stderr, "The activator's log is", d.logPath())
		}
	}()

	line := newTimeline()
	events, err := follow(ctx, d.control)
	if err != nil {
		return err
	}
	line.say("%d services are asleep; no process of theirs runs", len(services))
	line.begin()
	results := fire(ctx, d.http)
	line.say("%d requests at once, %d to each service", requests, requests/len(services))
	if err := line.watch(ctx, events, results); err != nil {
		return err
	}
	lost := line.report()
	line.say("waiting %v for the services to fall asleep again …", idle)
	if err := line.watchSleep(ctx, events); err != nil {
		return err
	}
	if lost > 0 {
		return fmt.Errorf("%d of %d requests were lost", lost, requests)
	}
	if oneShot {
		return nil
	}
	hints(d)
	select {
	case <-ctx.Done():
		fmt.Println("\nStopping …")
		return nil
	case <-d.done:
		return errors.New("the activator ended")
	}
}

// buildAll builds both programs into dir.
func buildAll(ctx context.Context, dir string) error {
	for name, pkg := range map[string]string{"activator": "./cmd/activator", "app": "./test/app"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, name), pkg)
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("build %s: %w", pkg, err)
		}
	}
	return nil
}

// demo is the running activator.
type demo struct {
	dir                    string
	cmd                    *exec.Cmd
	http, control, metrics string
	done                   chan struct{} // closed when it has ended
	err                    error         // after done
}

func startActivator(ctx context.Context, dir string) (*demo, error) {
	d := &demo{
		dir: dir, done: make(chan struct{}),
		http: freeAddress(8080), control: freeAddress(8012), metrics: freeAddress(9090),
	}
	file := filepath.Join(dir, "dormouse.yaml")
	if err := os.WriteFile(file, []byte(configuration(d)), 0o600); err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	log, err := os.Create(d.logPath())
	if err != nil {
		return nil, fmt.Errorf("make the log: %w", err)
	}
	defer log.Close()
	d.cmd = exec.Command(filepath.Join(dir, "activator"), "local", "-f", file, "--drain-timeout=10s")
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the demo, which then stops it in order
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the activator: %w", err)
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.done)
	}()
	if err := d.awaitReady(ctx); err != nil {
		return nil, errors.Join(err, d.stop())
	}
	return d, nil
}

func (d *demo) logPath() string { return filepath.Join(d.dir, "activator.log") }

// awaitReady asks until the activator says that it is ready.
func (d *demo) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if get(ctx, "http://"+d.metrics+"/readyz") == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-d.done:
			return fmt.Errorf("the activator ended: %w", d.err)
		case <-ctx.Done():
			return errors.New("the activator is not ready")
		}
	}
}

// stop ends the activator as an operator would, and waits for it.
func (d *demo) stop() error {
	_ = d.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-d.done:
	case <-time.After(patience):
		_ = d.cmd.Process.Kill()
		<-d.done
	}
	if d.err != nil {
		return fmt.Errorf("the activator ended with: %w", d.err)
	}
	return nil
}

// freeAddress returns a loopback address with the port that the documentation uses or, where that is taken, a free one.
func freeAddress(preferred int) string {
	for _, port := range []int{preferred, 0} {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			address := l.Addr().String()
			_ = l.Close()
			return address
		}
	}
	return "127.0.0.1:0"
}
