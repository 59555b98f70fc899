//go:build root

package fault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/tests/stage"
)

// traced writes a script that runs a program as it is or, where the file beside it says with which arguments, under strace. The traced process stays the
// script's own, so that whoever kills the daemon kills that.
func traced(t *testing.T, program string) (script, arguments, log string) {
	t.Helper()
	dir := t.TempDir()
	script, arguments, log = filepath.Join(dir, filepath.Base(program)), filepath.Join(dir, "arguments"), filepath.Join(dir, "calls")
	text := fmt.Sprintf("#!/bin/sh\n[ ! -s '%s' ] || exec strace -D -f -qq -o '%s' $(cat '%s') '%s' \"$@\"\nexec '%s' \"$@\"\n", arguments, log, arguments, program, program)
	must(t, os.WriteFile(script, []byte(text), 0o700))
	return script, arguments, log
}

// startingCalls are the calls by which a start after a crash changes what is on disk, found with strace -f -c.
var startingCalls = []struct{ who, call string }{
	{"vault", "pwrite64"}, {"vault", "fdatasync"}, {"vault", "fsync"}, {"vault", "msync"}, {"vault", "ftruncate"}, {"vault", "renameat"}, {"vault", "unlinkat"},
	{"storefront", "fsync"}, {"storefront", "msync"}, {"storefront", "ftruncate"}, {"storefront", "renameat"}, {"storefront", "unlinkat"},
}

// TestFailingStarts makes calls fail while a daemon starts after a crash: the first in each thread, or the third. It does not start, or it does and what it
// tells anybody is true; a plain start after it serves again, and everything is held to what TestKills holds it to.
func TestFailingStarts(t *testing.T) {
	seed := seed(t)
	bin := binaries
	arguments, logs := map[string]string{}, map[string]string{}
	bin.Vault, arguments["vault"], logs["vault"] = traced(t, binaries.Vault)
	bin.Storefront, arguments["storefront"], logs["storefront"] = traced(t, binaries.Storefront)
	s := openStage(t, stage.Options{Bin: bin, VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	w := newWorld(t, s, seed)
	for _, h := range w.households {
		h.excuses = append(h.excuses, policies.CodeLogStopped, policies.CodeImport, policies.CodeInternal)
	}
	kinds := []string{"EIO:when=1"}
	if *everyCall {
		kinds = []string{"EIO:when=1", "ENOSPC:when=1", "EIO:when=3", "ENOSPC:when=3"}
	}
	met := 0
	for i, f := range startingCalls {
		daemon := s.Vault
		if f.who == "storefront" {
			daemon = s.Storefront
		}
		for _, kind := range kinds {
			if !*everyCall && i%2 == 1 {
				kind = strings.Replace(kind, "EIO", "ENOSPC", 1)
			}
			what := fmt.Sprintf("%s fails with %s while the %s starts", f.call, kind, f.who)
			outcome := ""
			w.demand(what, w.round(func() ([]*stage.Daemon, error) {
				daemon.Kill()
				_ = os.Remove(logs[f.who])
				must(t, os.WriteFile(arguments[f.who], []byte("-e trace="+f.call+" -e inject="+f.call+":error="+kind), 0o600))
				defer func() { must(t, os.WriteFile(arguments[f.who], nil, 0o600)) }()
				ctx, cancel := context.WithTimeout(t.Context(), startBound)
				defer cancel()
				err := daemon.Start(ctx)
				if err == nil {
					time.Sleep(300 * time.Millisecond)
				}
				daemon.Kill()
				injected := 0
				if data, err := os.ReadFile(logs[f.who]); err == nil {
					injected = strings.Count(string(data), "INJECTED")
				}
				if injected > 0 {
					met++
				}
				if outcome = fmt.Sprintf("%d calls failed, it starts", injected); err != nil {
					said := strings.Split(strings.TrimSpace(err.Error()), "\n")
					outcome = fmt.Sprintf("%d calls failed: %s", injected, said[len(said)-1])
				}
				return []*stage.Daemon{daemon}, nil
			}))
			t.Logf("%s: %s", what, outcome)
		}
	}
	if least := len(startingCalls) * len(kinds) / 2; met < least {
		t.Errorf("calls failed in %d starts, want at least %d: too little was tested", met, least)
	}
	t.Log(w.summary())
}

// TestKilledAtLogin kills token workers, by a signal at the call, when SoftHSM has truncated the token's own file at the login and is about to write it. An empty file
// stays, which is a token lost to SoftHSM; after a plain start everything is there.
func TestKilledAtLogin(t *testing.T) {
	bin := binaries
	var arguments, log string
	bin.Vault, arguments, log = traced(t, binaries.Vault)
	s := openStage(t, stage.Options{Bin: bin, VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	w := newWorld(t, s, seed(t))
	files, err := filepath.Glob(filepath.Join(s.TokenFolder(), "*", "token.object"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%d tokens, %v", len(files), err)
	}
	rounds := 2
	if *everyCall {
		rounds = 10
	}
	for range rounds {
		w.demand("after a kill at the login", w.round(func() ([]*stage.Daemon, error) {
			s.Vault.Kill()
			must(t, os.WriteFile(arguments, []byte("-P "+files[0]+" -e trace=write -e inject=write:signal=SIGKILL:when=1"), 0o600))
			ctx, cancel := context.WithTimeout(t.Context(), startBound)
			defer cancel()
			err := s.Vault.Start(ctx)
			must(t, os.WriteFile(arguments, nil, 0o600))
			s.Vault.Kill()
			if err == nil {
				return nil, errors.New("the vault started although its worker was killed")
			}
			if info, err := os.Stat(files[0]); err != nil || info.Size() != 0 {
				data, _ := os.ReadFile(log)
				return nil, fmt.Errorf("the token's file was not torn (%w), so nothing was tested: %s", err, data)
			}
			return []*stage.Daemon{s.Vault}, nil
		}))
	}
	t.Log(w.summary())
}

// TestShortWrites has the vault write a part of a record: its files may not grow beyond a size that the next record exceeds (RLIMIT_FSIZE, which strace
// cannot do: it would tell of a short write that did not happen). The kernel then writes what fits and refuses the rest, until a restart.
func TestShortWrites(t *testing.T) {
	seed := seed(t)
	s := openStage(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	w := newFullWorld(t, s, seed)
	for _, h := range w.households {
		h.excuses = append(h.excuses, policies.CodeLogStopped, policies.CodeImport)
	}
	rounds := 4
	if *everyCall {
		rounds = 25
	}
	short := 0
	for range rounds {
		w.demand("after a short write", w.round(func() ([]*stage.Daemon, error) {
			journals, err := filepath.Glob(filepath.Join(s.VaultLog(), "journal-*"))
			if err != nil || len(journals) == 0 {
				return nil, fmt.Errorf("no journal: %w", err)
			}
			journal := journals[len(journals)-1]
			info, err := os.Stat(journal)
			if err != nil {
				return nil, err
			}
			// Others write meanwhile, so the limit is a little above.
			limit := uint64(info.Size()) + 4096 + uint64(w.random.IntN(4096))
			if err := unix.Prlimit(s.Vault.PID(), unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: limit}, nil); err != nil {
				return nil, err
			}
			if err := w.awaitHealth(15*time.Second, func(h api.Health, err error) bool {
				return err == nil && h.Status == "degraded" && strings.Contains(h.Reason, unknown)
			}); err != nil {
				return nil, err
			}
			s.Vault.Kill()
			if info, err = os.Stat(journal); err != nil {
				return nil, err
			}
			if uint64(info.Size()) == limit {
				short++
			}
			return []*stage.Daemon{s.Vault}, nil
		}))
	}
	if t.Logf("%d of %d times the journal ended within a record", short, rounds); short == 0 {
		t.Error("no write was short: nothing was tested")
	}
	t.Log(w.summary())
}
