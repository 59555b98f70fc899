package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/phrases"
)

// terminal is a terminal of the test's own, and what stands behind it.
func terminal(t *testing.T) (screen, behind *os.File) {
	t.Helper()
	behind, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { behind.Close() })
	if err := unix.IoctlSetPointerInt(int(behind.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(behind.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	screen, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	return screen, behind
}

func echoes(t *testing.T, screen *os.File) bool {
	t.Helper()
	settings, err := unix.IoctlGetTermios(int(screen.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return settings.Lflag&unix.ECHO != 0
}

// TestPromptsEnd: who is asked for something and does not want to say it presses Ctrl-C. The command ends, and the terminal shows again what is typed.
func TestPromptsEnd(t *testing.T) {
	for name, ask := range map[string]func(s *session) error{
		"passphrase": func(s *session) error { _, err := s.secret(true); return err },
		"password":   func(s *session) error { _, err := s.password("", "--password-file", false); return err },
		"a line":     func(s *session) error { _, err := s.line(bufio.NewReader(s.stdin)); return err },
		"a value":    func(s *session) error { _, err := s.value("note", nil, ""); return err },
		"a code":     func(s *session) error { _, err := s.typed("device.ask.new"); return err },
	} {
		screen, _ := terminal(t)
		ctx, interrupt := context.WithCancel(t.Context())
		s := &session{Global: &Global{}, ctx: ctx, lang: phrases.English, stdin: screen, stdout: io.Discard, stderr: io.Discard}
		asked := make(chan error, 1)
		go func() { asked <- ask(s) }()
		if name == "passphrase" || name == "password" {
			for deadline := time.Now().Add(30 * time.Second); echoes(t, screen); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%s: the terminal shows what is typed", name)
				}
			}
		}
		interrupt()
		select {
		case err := <-asked:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
			if code := s.fail(fmt.Errorf("reaching the vault: %w: %w", policies.CodeUnavailable, err)); code != exitError {
				t.Errorf("%s: exit code %d", name, code)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: it goes on asking", name)
		}
		if !echoes(t, screen) {
			t.Errorf("%s: the terminal hides what is typed next", name)
		}
	}
}

// TestPromptHides: what is typed twice is taken, and another second time is not.
func TestPromptHides(t *testing.T) {
	for again, want := range map[string]error{"horse\n": nil, "house\n": errDiffer} {
		screen, behind := terminal(t)
		s := &session{Global: &Global{}, ctx: t.Context(), lang: phrases.English, stdin: screen, stderr: io.Discard}
		if _, err := io.WriteString(behind, "horse\n"+again); err != nil {
			t.Fatal(err)
		}
		if got, err := s.prompt(true); !errors.Is(err, want) || err == nil && string(got) != "horse" {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// TestEndedBeforeThePrompt: who ends a command before it asks is asked nothing, and no terminal hides what is typed next.
func TestEndedBeforeThePrompt(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	end()
	if _, err := whileWanted(ctx, func() (int, error) { t.Error("it asks"); return 0, nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	time.Sleep(10 * time.Millisecond) // for a goroutine that asks all the same
}

// TestInterruptedTellsWhatWasDone: Ctrl-C hides no result: not that of a closed account of which the storefront does not know, and none that was printed already.
func TestInterruptedTellsWhatWasDone(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	end()
	var out, errs bytes.Buffer
	s := &session{Global: &Global{JSON: true}, ctx: ctx, lang: phrases.English, stdout: &out, stderr: &errs}
	if s.fail(errQuiet{context.Canceled}); out.Len() > 0 {
		t.Errorf("a second result: %s", out.String())
	}
	for why, want := range map[error]string{
		fmt.Errorf("reaching the vault: %w: %w", policies.CodeUnavailable, context.Canceled):                      `"code": "interrupted"`,
		fmt.Errorf("%w: %w: %w", client.ErrNotStopped, policies.CodeUnavailable, context.Canceled):                `"code": "interrupted"`,
		fmt.Errorf("reaching the vault: %w: %w", policies.CodeUnavailable, context.DeadlineExceeded):              `"code": "unavailable"`,
		fmt.Errorf("%w: %w: %w", client.ErrUntold, policies.CodeUnavailable, errors.New("it was refused before")): `"code": "unavailable"`,
	} {
		out.Reset()
		if s.fail(why); !strings.Contains(out.String(), want) {
			t.Errorf("%v is told as %s, want %s", why, out.String(), want)
		}
	}
	s.JSON = false
	if s.fail(fmt.Errorf("%w: %w", client.ErrUntold, context.Canceled)); !strings.Contains(errs.String(), "closed") {
		t.Errorf("it says %q", errs.String())
	}
	errs.Reset()
	if s.fail(fmt.Errorf("reaching the vault: %w", context.Canceled)); !strings.Contains(errs.String(), "interrupted") {
		t.Errorf("it says %q", errs.String())
	}
}

// atPrompt does something when a prompt is written.
type atPrompt func()

func (f atPrompt) Write(b []byte) (int, error) {
	f()
	return len(b), nil
}

// TestEndedAsItAsks: however soon after the question Ctrl-C comes, the terminal shows what is typed next.
func TestEndedAsItAsks(t *testing.T) {
	screen, _ := terminal(t)
	for i := range 200 { // each leaves a thread that waits for the terminal
		ctx, interrupt := context.WithCancel(t.Context())
		s := &session{Global: &Global{}, ctx: ctx, lang: phrases.English, stdin: screen}
		s.stderr = atPrompt(func() {
			go func() {
				for begin := time.Now(); time.Since(begin) < time.Duration(i%100)*time.Microsecond; {
				}
				interrupt()
			}()
		})
		if _, err := s.prompt(false); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Microsecond) // for what hides it all the same
		if !echoes(t, screen) {
			t.Fatalf("after %d prompts the terminal hides what is typed next", i+1)
		}
	}
}
