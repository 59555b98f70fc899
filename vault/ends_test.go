package vault

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/api"
)

// TestOneKeyThatStays: of the keys of a revocation the token does not destroy one. The others are destroyed all the same, nothing is acknowledged, and all are
// refused, until the same document again, or a start, finishes it.
func TestOneKeyThatStays(t *testing.T) {
	for name, finish := range map[string]func(w *world, s api.Submission){
		"sent again": func(w *world, s api.Submission) { w.accepted(s) },
		"restarted":  func(w *world, s api.Submission) { w.restart(true); w.accepted(s) },
	} {
		t.Run(name, func(t *testing.T) {
			eachCustody(t, func(t *testing.T, w *world) {
				o, r := w.owner(), w.reader()
				fields := []policies.Field{"a", "b", "c", "d"}
				for _, f := range fields {
					o.seal(f, 1, string(f))
				}
				o.publish()
				g, kept := o.grant(r, nil, fields...), o.grant(r, nil, "a")
				stuck := keyID(g.ID, "b", policies.AuthorID(o.id))
				w.token.mu.Lock()
				w.token.stuck = map[KeyID]bool{stuck: true}
				w.token.mu.Unlock()
				s, hash := o.revocationOf(nil, g, fields...)
				for range 2 {
					if receipt, err := w.submit(s); receipt != nil || !errors.Is(err, policies.CodeTokenFailure) {
						t.Fatalf("acknowledged with a key in the token: %v", err)
					}
				}
				if w.held() != 2 || !w.holds(stuck) {
					t.Errorf("%d keys are left, want that which stays and that of another grant", w.held())
				}
				for _, f := range fields {
					if got := r.read(ask{o, g, f, 0}).Items[0].Outcome; got != policies.CodeRevoked {
						t.Errorf("%s: outcome %s", f, got)
					}
				}
				w.token.mu.Lock()
				w.token.stuck = nil
				w.token.mu.Unlock()
				finish(w, s)
				o.seq, o.prev = o.seq+1, hash
				if w.held() != 1 {
					t.Errorf("%d keys are left", w.held())
				}
				destroyed := w.of(evidence.EntryDestroyed)
				if len(destroyed) != 1 || len(destroyed[0].Items) != len(fields) {
					t.Fatalf("recorded %+v", destroyed)
				}
				// Three of them were destroyed at a try before: nobody saw it at this one.
				if resident := w.custody == policies.CustodyResident; resident != strings.Contains(destroyed[0].Note, "3 not in the token") {
					t.Errorf("the note is %q", destroyed[0].Note)
				}
				r.value(ask{o, kept, "a", 0}, r.read(ask{o, kept, "a", 0}).Items[0])
			})
		})
	}
}

// TestEndsAreToldApart: of the keys of a revocation a host with the PIN renamed one, took one away, and put the key of another grant in the place of a third. Each is told of its own field, the record counts
// them, and the other grant's key stays.
func TestEndsAreToldApart(t *testing.T) {
	w := newWorld(t)
	said := new(log)
	w.said = said
	w.restart(true)
	o, r := w.owner(), w.reader()
	fields := []policies.Field{"a", "b", "c", "d", "e"}
	for _, f := range fields {
		o.seal(f, 1, string(f))
	}
	o.publish()
	g, other := o.grant(r, nil, fields...), o.grant(r, nil, "a")
	key := func(g *policies.Grant, f policies.Field) KeyID { return keyID(g.ID, f, policies.AuthorID(o.id)) }
	elsewhere := KeyID{9}
	w.token.mu.Lock()
	keys := w.token.keys
	keys[elsewhere] = keys[key(g, "b")]
	delete(keys, key(g, "b"))
	delete(keys, key(g, "d"))
	keys[key(g, "e")] = keys[key(other, "a")]
	w.token.mu.Unlock()
	s, _ := o.revocationOf(nil, g, fields...)
	w.accepted(s)
	destroyed := w.of(evidence.EntryDestroyed)
	if len(destroyed) != 1 || destroyed[0].Note != "2 not in the token, 1 under another name" {
		t.Errorf("recorded %+v", destroyed)
	}
	if w.holds(elsewhere) || !w.holds(key(g, "e")) || !w.holds(key(other, "a")) || w.held() != 2 {
		t.Errorf("%d keys are left, and the renamed one is there: %t", w.held(), w.holds(elsewhere))
	}
	said.mu.Lock()
	defer said.mu.Unlock()
	for _, line := range strings.Split(said.buf.String(), "\n") {
		for _, f := range fields {
			var want string
			switch f {
			case "b":
				want = "under another name"
			case "d", "e":
				want = "was not in the token"
			}
			if strings.HasSuffix(strings.TrimSpace(line), " field="+string(f)) && (want == "" || !strings.Contains(line, want)) {
				t.Errorf("of %s it is said: %s", f, line)
			}
		}
	}
	for _, f := range []string{"b", "d", "e"} {
		if n := strings.Count(said.buf.String(), " field="+f+"\n"); n != 1 {
			t.Errorf("%d lines are about %s", n, f)
		}
	}
}

// TestEndsInBothCustodies: one revocation ends keys of both custodies, all of them.
func TestEndsInBothCustodies(t *testing.T) {
	w := newWorld(t)
	o, r := w.owner(), w.reader()
	for _, f := range []policies.Field{"a", "b", "c"} {
		o.seal(f, 1, string(f))
	}
	o.publish()
	resident := o.grant(r, nil, "a", "b", "c")
	w.custody = policies.CustodySealed
	kept := o.grant(r, nil, "a", "b", "c")
	s, _ := o.revocationOf(func(d *policies.Revocation) {
		for _, f := range []policies.Field{"a", "b"} {
			d.Items = append(d.Items, policies.RevokedItem{Grant: kept.ID, Field: f, Author: policies.AuthorID(o.id)})
		}
	}, resident, "a", "b")
	w.accepted(s)
	for _, custody := range []policies.Custody{policies.CustodySealed, policies.CustodyResident} {
		w.custody = custody
		g := map[policies.Custody]*policies.Grant{policies.CustodySealed: kept, policies.CustodyResident: resident}[custody]
		if w.held() != 1 || !w.holds(keyID(g.ID, "c", policies.AuthorID(o.id))) {
			t.Errorf("%s: %d keys are left, want that of the field that was not revoked", custody, w.held())
		}
	}
}

// TestEndsBesideAStoppedStore: of the keys of a revocation the token does not destroy one, and the file of sealed keys takes no changes any more. The owner is told that sending it again does not help, whichever
// of the two came last, and the next start finishes it.
func TestEndsBesideAStoppedStore(t *testing.T) {
	for _, sealedFirst := range []bool{true, false} {
		w := newWorld(t)
		o, r := w.owner(), w.reader()
		o.seal("a", 1, "a")
		o.publish()
		resident := o.grant(r, nil, "a")
		w.custody = policies.CustodySealed
		kept := o.grant(r, nil, "a")
		readOnly(t, filepath.Join(w.dir, "keys", "sealed-keys.1"))
		w.token.mu.Lock()
		w.token.stuck = map[KeyID]bool{keyID(resident.ID, "a", policies.AuthorID(o.id)): true}
		w.token.mu.Unlock()
		first, last := kept, resident
		if !sealedFirst {
			first, last = resident, kept
		}
		s, _ := o.revocationOf(func(d *policies.Revocation) {
			d.Items = append(d.Items, policies.RevokedItem{Grant: last.ID, Field: "a", Author: policies.AuthorID(o.id)})
		}, first, "a")
		if _, err := w.submit(s); !errors.Is(err, policies.CodeTokenFailure) || !strings.Contains(err.Error(), "mended a disk") {
			t.Errorf("the sealed one first: %t; %v", sealedFirst, err)
		}
		w.token.mu.Lock()
		w.token.stuck = nil
		w.token.mu.Unlock()
		w.restart(true)
		w.accepted(s)
		for _, w.custody = range []policies.Custody{policies.CustodySealed, policies.CustodyResident} {
			if w.held() != 0 {
				t.Errorf("%d keys are left in custody %s", w.held(), w.custody)
			}
		}
	}
}

// readOnly makes every write fail to a file that this process has open.
func readOnly(t *testing.T, path string) {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	open, err := filepath.Glob("/proc/self/fd/*")
	must(t, err)
	met := 0
	for _, link := range open {
		fd, err := strconv.Atoi(filepath.Base(link))
		must(t, err)
		if target, err := os.Readlink(link); err == nil && target == path && fd != int(file.Fd()) {
			must(t, unix.Dup3(int(file.Fd()), fd, unix.O_CLOEXEC))
			met++
		}
	}
	if met != 1 {
		t.Fatalf("%s is open %d times", path, met)
	}
}

// TestFailedImportLeavesNothing: the token takes some keys of a grant and not the last. None of them stays, at once and not only at the next start.
func TestFailedImportLeavesNothing(t *testing.T) {
	eachCustody(t, func(t *testing.T, w *world) {
		o, r := w.owner(), w.reader()
		fields := []policies.Field{"a", "b", "c", "d"}
		for _, f := range fields {
			o.seal(f, 1, string(f))
		}
		o.publish()
		var mu sync.Mutex
		imports := 0
		w.token.hook = func(op string) error {
			mu.Lock()
			defer mu.Unlock()
			if op == "import" {
				if imports++; imports == len(fields) {
					return errors.New("device error")
				}
			}
			return nil
		}
		s, _, _ := o.grantOf(r, nil, fields...)
		w.refuses(s, policies.CodeImport, "a grant of which the token does not take a key")
		if imports != len(fields) || w.held() != 0 {
			t.Errorf("%d keys are left of %d imports", w.held(), imports)
		}
	})
}

// TestEndWaitsForItsUse: of two keys of a revocation one is in use. It is destroyed when that is over and not before, and only then is the revocation acknowledged.
func TestEndWaitsForItsUse(t *testing.T) {
	eachCustody(t, func(t *testing.T, w *world) {
		o, r := w.owner(), w.reader()
		o.seal("idle", 1, "i")
		o.seal("used", 1, "u")
		o.publish()
		g := o.grant(r, nil, "idle", "used")
		used := keyID(g.ID, "used", policies.AuthorID(o.id))
		reading, goOn := make(chan struct{}), make(chan struct{})
		w.token.hook = func(op string) error {
			if op == "derive" {
				close(reading)
				<-goOn
			}
			return nil
		}
		var all sync.WaitGroup
		all.Go(func() {
			if got := r.read(ask{o, g, "used", 0}).Items[0].Outcome; got != policies.CodeReleased {
				t.Errorf("the read that was decided before: %s", got)
			}
		})
		<-reading
		s, _ := o.revocationOf(nil, g, "idle", "used")
		acknowledged := make(chan struct{})
		all.Go(func() {
			w.accepted(s)
			close(acknowledged)
		})
		until(t, "the revocation's record", func() bool { return len(w.of(evidence.EntryRevocation)) == 1 })
		if w.custody == policies.CustodyResident {
			until(t, "the end of the other key", func() bool { return w.held() == 1 })
		}
		select {
		case <-acknowledged:
			t.Error("acknowledged while a key is in use")
		default:
		}
		if !w.holds(used) {
			t.Error("the key in use is destroyed")
		}
		close(goOn)
		all.Wait()
		if w.held() != 0 {
			t.Errorf("%d keys are left", w.held())
		}
	})
}
