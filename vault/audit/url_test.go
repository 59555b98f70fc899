package audit

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// A log behind a web server is the one in its folder; without entries, consistency can be shown and nothing else.
func TestURL(t *testing.T) {
	l := newLog(newVault(1)).fill(600)
	files := l.files()
	public := false
	var mu sync.Mutex // a client may hang up before the handler has ended
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		name := strings.TrimPrefix(r.URL.Path, "/v1/log/")
		data, ok := files[name]
		if !ok || public && (strings.Contains(name, "entries") || strings.HasPrefix(name, "bodies/")) {
			http.NotFound(w, r)
			return
		}
		w.Write(data)
	}))
	t.Cleanup(server.Close)
	source := &URL{Prefix: server.URL + "/v1/log/", Client: server.Client()}
	if d, err := OpenDocument(t.Context(), source); err != nil || d.Vault != l.doc.Vault {
		t.Fatal(err)
	}
	if s, err := l.opened(t, source).Verify(t.Context()); err != nil || s.Size != 600 {
		t.Fatal(err)
	}
	mu.Lock()
	public = true
	mu.Unlock()
	log := l.opened(t, source)
	if err := log.Consistent(t.Context(), l.checkpoint(300)); err != nil {
		t.Error(err)
	}
	if _, err := log.Verify(t.Context()); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrDamaged) {
		t.Errorf("without entries: %v", err)
	}
	mu.Lock()
	files[TilePath(1, 0, 2)] = append(files[TilePath(1, 0, 2)], make([]byte, maxTile)...)
	mu.Unlock()
	if err := log.Consistent(t.Context(), l.checkpoint(300)); !errors.Is(err, ErrDamaged) {
		t.Errorf("a tile that is too long: %v", err)
	}
	teapot := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	t.Cleanup(teapot.Close)
	if _, err := (&URL{Prefix: teapot.URL + "/", Client: teapot.Client()}).Checkpoint(t.Context()); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a server that answers otherwise: %v", err)
	}
}
