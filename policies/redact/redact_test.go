package redact

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

// TestRedacted: a value that embeds it, a pointer to one, and one within another print nothing of what is beside it.
func TestRedacted(t *testing.T) {
	type holder struct {
		Redacted
		Key [4]byte
		Pin string
	}
	h := holder{Key: [4]byte{0xc5, 0xc5, 0xc5, 0xc5}, Pin: "pin-0000"}
	var out bytes.Buffer
	for _, v := range []any{h, &h, struct{ Inner any }{h}, struct{ Inner holder }{h}, []holder{h}, map[string]*holder{"a": &h}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%t", "%!"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "value", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "value", v)
		encoded, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(encoded)
	}
	for _, form := range []string{"197", "c5c5", "C5C5", `\xc5`, "xcXF", "305 305", "pin-"} {
		if strings.Contains(out.String(), form) {
			t.Errorf("the secret is printed, as %q: %s", form, out.String())
		}
	}
	if !strings.Contains(out.String(), redacted) {
		t.Error("the search is blind")
	}
}
