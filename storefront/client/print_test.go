package client

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/vault/pre"
)

// TestDevicesDoNotPrint: however an Owner or a Reader is printed or logged, the root that is in its state, and in what it points to, does not appear.
func TestDevicesDoNotPrint(t *testing.T) {
	raw := bytes.Repeat([]byte{0xc5}, 32)
	root, err := pre.ParseRoot(raw)
	if err != nil {
		t.Fatal(err)
	}
	state := base{Root: raw, Recovery: raw}
	owner := &Owner{device: &device{root: root}, former: root, earlier: []*pre.Root{root}, state: ownerState{base: state, Former: raw}}
	reader := &Reader{device: &device{root: root}, state: readerState{base: state}}
	owner.base, reader.base = &owner.state.base, &reader.state.base
	var out bytes.Buffer
	for _, v := range []any{owner, reader, struct{ Device any }{owner}, []any{reader}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "device", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "device", v)
		if encoded, err := json.Marshal(v); err == nil {
			out.Write(encoded)
		}
	}
	for _, form := range []string{"197 197", "c5c5", "C5C5", "0xc5, 0xc5", `\xc5\xc5`, "xcXF", "305 305", string(raw[:4])} {
		if strings.Contains(out.String(), form) {
			t.Errorf("the root is printed, as %q: %.300s", form, out.String())
		}
	}
	if !strings.Contains(out.String(), "(redacted)") {
		t.Error("the search is blind")
	}
}
