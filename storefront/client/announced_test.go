package client

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/succession"
)

func announce() ReplaceOptions { return ReplaceOptions{Reason: succession.Planned, Announce: true} }

// TestReplaceOverOwnAnnouncement: who announced that everything is to be replaced, and finds what does it at once, does it at once: with another root than was announced, which somebody may have by
// now. Killed anywhere on the way, either the announcement stands or the replacement goes on.
func TestReplaceOverOwnAnnouncement(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	o, _, acme, _ := w.household(1)
	var first, announcedIn, newest []byte
	_, err := o.Backup(true, keep(&first)) // what replaces at once lies elsewhere
	w.must(err)
	w.must(o.Replace(ctx, announce(), keep(&announcedIn)))
	root := o.state.Replacing.Root
	before := bytes.Clone(root)
	stands := func(what string) {
		t.Helper()
		if at, own := o.Announced(); !own || at.IsZero() || !bytes.Equal(o.state.Replacing.Root, before) {
			t.Fatalf("%s: the announcement does not stand any more", what)
		}
	}
	if err := o.Replace(ctx, announce(), keep(new([]byte))); !errors.Is(err, ErrAnnounced) {
		t.Errorf("announced twice: %v", err)
	}
	if _, err := o.MeetDevice(ctx, "AAAA-AAAA"); !errors.Is(err, ErrAnnounced) {
		t.Errorf("a device that is to be added meanwhile: %v", err)
	}
	stands("announced twice")
	if err := o.Replace(ctx, stolen(), keep(new([]byte))); !errors.Is(err, ErrRecovery) {
		t.Errorf("without what does it at once: %v", err)
	}
	stands("without what does it at once")
	full := errors.New("no room for the backup")
	at := stolen()
	at.Recovery = first
	if err := o.Replace(ctx, at, func([]byte) error { return full }); !errors.Is(err, full) {
		t.Errorf("without a backup: %v", err)
	}
	stands("without a backup")
	w.must(o.Replace(ctx, at, keep(&newest)))
	if at, _ := o.Announced(); !at.IsZero() || o.state.Replacing != nil || bytes.Equal(o.state.Root, before) {
		t.Error("it is announced still, or the root that was announced is in force")
	}
	if !bytes.Equal(root, make([]byte, len(root))) {
		t.Error("the root that was announced is in memory still")
	}
	w.wantRead(acme, o, "own/f0", "value 0")
	stale, err := RestoreOwner(new(memory), announcedIn, Options{})
	w.must(err)
	v, err := stale.vault(ctx)
	w.must(err)
	// In force is neither what it has nor what waits with it, so the vault says that the signature by that does not verify.
	if err := stale.following(ctx, func() error { _, err := stale.ask(ctx, v); return err }); !errors.Is(err, policies.CodeSignature) || !errors.Is(err, ErrReplaced) {
		t.Errorf("a device with what was announced asks for the chain: %v", err)
	}
	if err := stale.Sync(ctx); !errors.Is(err, ErrReplaced) {
		t.Errorf("a device with what was announced: %v", err)
	}
	fresh, err := RestoreOwner(new(memory), newest, Options{})
	w.must(err)
	w.must(fresh.Sync(ctx))
	w.must(fresh.Set(ctx, set("own/f0", "later")))
	w.wantRead(acme, o, "own/f0", "later")

	start, step := saves(t)
	for saves, begun := start, true; begun; saves += step {
		o, m, acme, _ := w.household(1)
		w.must(o.Replace(ctx, announce(), keep(new([]byte))))
		m.limit = m.saves + saves
		err := o.Replace(ctx, stolen(), keep(new([]byte)))
		if begun = errors.Is(err, errCrash); !begun {
			w.must(err)
		}
		m.limit = 0
		again := reopen(m, w)
		w.must(again.Sync(ctx))
		if _, own := again.Announced(); own && again.line.Newest().Generation == 1 {
			w.must(again.Replace(ctx, stolen(), keep(new([]byte))))
		}
		if again.former != nil || len(again.state.Tasks) != 0 || again.state.Replacing != nil || again.line.Newest().Generation != 2 {
			t.Fatalf("killed at save %d: %d tasks are left, generation %d", saves, len(again.state.Tasks), again.line.Newest().Generation)
		}
		w.wantRead(acme, o, "own/f0", "value 0")
	}
}

// TestReplaceOverUnsentAnnouncement: the same of one that could not be sent. It is never sent afterwards.
func TestReplaceOverUnsentAnnouncement(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	o, _, acme, _ := w.household(1)
	w.silent("/successions")
	w.reachable(false)
	if err := o.Replace(ctx, announce(), keep(new([]byte))); !errors.Is(err, policies.CodeUnavailable) {
		t.Fatal(err)
	}
	w.hostile(nil)
	w.reachable(true)
	w.must(o.Replace(ctx, stolen(), keep(new([]byte))))
	w.must(o.Sync(ctx))
	if at, _ := o.Announced(); !at.IsZero() || o.line.Newest().Generation != 2 {
		t.Errorf("announced for %v, generation %d", at, o.line.Newest().Generation)
	}
	w.wantRead(acme, o, "own/f0", "value 0")
}

// refusing is a storefront that refuses what changes the root with this code, and asks nobody.
func (w *world) refusing(code policies.Code) {
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == "POST" && strings.HasSuffix(r.URL.Path, "/successions") {
			problem.Write(rw, code)
			return
		}
		next.ServeHTTP(rw, r)
	})
}

// TestRefusedByAStorefrontAlone: nobody but the vault has a device forget what it announced, what is to be replaced at once, or an objection. Whatever a storefront says while the vault is silent, or
// where nobody but it can be asked, all that is kept, holds nothing else up, and goes on with the next sync.
func TestRefusedByAStorefrontAlone(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	for _, second := range []string{w.network.Owners, ""} {
		w.network.Owners = second
		for _, code := range []policies.Code{policies.CodeMalformed, policies.CodeSuccessionPending, policies.CodeSuccessionOld, policies.CodeKeyReplaced, policies.CodeNotFound} {
			o, m, acme, _ := w.household(1)
			w.refusing(code)
			w.reachable(false)
			if err := o.Replace(ctx, announce(), keep(new([]byte))); !errors.Is(err, code) {
				t.Fatalf("announced, %s: %v", code, err)
			}
			if !o.announces() {
				t.Errorf("announced, %s: the device forgot it", code)
				continue
			}
			w.must(o.Set(ctx, set("own/f0", "meanwhile")))
			w.hostile(nil)
			w.reachable(true)
			o = reopen(m, w)
			w.must(o.Sync(ctx))
			if at, own := o.Announced(); !own || time.Until(at) < 71*time.Hour {
				t.Errorf("announced, %s: %v, %t", code, at, own)
			}
			// An objection.
			w.refusing(code)
			w.reachable(false)
			if err := o.CancelReplacement(ctx); !errors.Is(err, code) {
				t.Errorf("objected, %s: %v", code, err)
			}
			w.hostile(nil)
			w.reachable(true)
			o = reopen(m, w)
			w.must(o.Sync(ctx))
			if at, _ := o.Announced(); !at.IsZero() || o.state.Replacing != nil {
				t.Errorf("objected, %s: it is announced still", code)
			}
			// At once.
			w.refusing(code)
			w.reachable(false)
			if err := o.Replace(ctx, stolen(), keep(new([]byte))); !errors.Is(err, code) {
				t.Errorf("at once, %s: %v", code, err)
			}
			w.hostile(nil)
			w.reachable(true)
			o = reopen(m, w)
			w.must(o.Sync(ctx))
			if o.line.Newest().Generation != 2 || o.state.Replacing != nil || len(o.state.Tasks) != 0 {
				t.Errorf("at once, %s: generation %d", code, o.line.Newest().Generation)
			}
			w.wantRead(acme, o, "own/f0", "meanwhile")
		}
	}
}

// TestAcceptedInSecret: a storefront says that the vault refused what the vault accepted. The chain tells, at once or when the storefront confirms it.
func TestAcceptedInSecret(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	for _, lies := range []int{1, 100} {
		o, _, acme, _ := w.household(1)
		w.reachable(false)
		told := 0
		w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method != "POST" || !strings.HasSuffix(r.URL.Path, "/successions") || told == lies {
				next.ServeHTTP(rw, r)
				return
			}
			told++
			next.ServeHTTP(httptest.NewRecorder(), r)
			problem.Write(rw, policies.CodeSuccessionUnannounced)
		})
		if err := o.Replace(ctx, announce(), keep(new([]byte))); !errors.Is(err, policies.CodeSuccessionUnannounced) != (lies == 1) || lies == 1 && err != nil {
			t.Errorf("%d lies: %v", lies, err)
		}
		w.hostile(nil)
		w.must(o.Sync(ctx))
		if at, own := o.Announced(); !own || at.IsZero() || len(o.state.Tasks) > 0 {
			t.Errorf("%d lies: announced for %v, by this device: %t", lies, at, own)
		}
		w.reachable(true)
		w.must(o.Replace(ctx, stolen(), keep(new([]byte))))
		w.wantRead(acme, o, "own/f0", "value 0")
	}
}

// TestRefusedByTheVault: what the vault refuses, or the confirmed chain excludes, the device forgets, the secrets of it too.
func TestRefusedByTheVault(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	for _, second := range []string{w.network.Owners, ""} {
		w.network.Owners = second
		o, m, _, _ := w.household(1)
		other := reopen(m.clone(), w)
		w.must(other.Replace(ctx, announce(), keep(new([]byte))))
		var root []byte
		err := o.Replace(ctx, announce(), func([]byte) error {
			w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
				if o.state.Replacing != nil && root == nil {
					root = o.state.Replacing.Root
				}
				next.ServeHTTP(rw, r)
			})
			return nil
		})
		w.hostile(nil)
		if !errors.Is(err, policies.CodeSuccessionPending) || o.state.Replacing != nil || len(o.state.Tasks) != 0 {
			t.Errorf("second route %q: %v, %d tasks", second, err, len(o.state.Tasks))
		}
		if len(root) == 0 || !bytes.Equal(root, make([]byte, len(root))) {
			t.Errorf("second route %q: the root that is not to be is in memory still", second)
		}
	}
}

// TestNoticeHiddenAndDenied: a storefront passes an announcement on, says that it was refused, and shows the chain of before, while the vault is away. The device does not announce it twice, and so is not
// told that another one is announced: it carries out what is.
func TestNoticeHiddenAndDenied(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _, _, _ := w.household(1)
	var mu sync.Mutex
	kept := map[string]*httptest.ResponseRecorder{} // what it answered before the announcement
	hide, pass := false, true
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		mu.Lock()
		defer mu.Unlock()
		out := httptest.NewRecorder()
		switch old := kept[r.URL.String()]; {
		case r.Method == "POST" && strings.HasSuffix(r.URL.Path, "/successions"):
			if pass {
				next.ServeHTTP(httptest.NewRecorder(), r)
				hide = true
			}
			problem.Write(out, policies.CodeSuccessionUnannounced)
		case r.Method == "GET" && hide && old != nil:
			out = old
		default:
			next.ServeHTTP(out, r)
			if r.Method == "GET" && !hide {
				kept[r.URL.String()] = out
			}
		}
		maps.Copy(rw.Header(), out.Header())
		rw.WriteHeader(out.Code)
		rw.Write(out.Body.Bytes())
	})
	w.must(o.Sync(ctx))
	w.must(o.Sync(ctx))
	w.reachable(false)
	if err := o.Replace(ctx, announce(), keep(new([]byte))); err == nil || !o.announces() || !hide {
		t.Fatalf("nothing is tested: %v", err)
	}
	w.reachable(true)
	pass = false
	o.Sync(ctx)
	w.hostile(nil)
	o.Sync(ctx)
	if _, own := o.Announced(); !own || !o.announces() || o.state.Replacing == nil || len(o.state.Replacing.Root) == 0 {
		t.Errorf("what is announced is forgotten: own %t", own)
	}
}
