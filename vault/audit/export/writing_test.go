package export

import (
	"fmt"
	"testing"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/writing"
)

// Who may write, and may not any more, is told as privileges to write, and what they published as theirs.
func TestWritersAsEvents(t *testing.T) {
	l, owner, acme, _, _ := innocent(t)
	g := &writing.Grant{
		Header: policies.NewHeader("write-grant", l.at), Audience: document.Vault, Owner: owner.owner(), Link: policies.Link{Seq: 5}, Writer: acme.author(), Purpose: "upkeep",
		NotBefore: l.at.Unix(), Expires: l.at.Unix() + 60, Fields: []writing.Field{{Field: "phone.mobile", Epoch: 1}}, Sealed: make([]byte, policies.KEMCiphertextSize+33+16),
	}
	e := must(policies.Sign(owner.key, g))
	both := evidence.Entry{Owner: owner.pseudo, Reader: acme.pseudo, Outcome: policies.CodeAccepted}
	of := func(kind evidence.Kind) evidence.Entry { both.Kind = kind; return both }
	l.add(of(evidence.EntryWriteGrant), evidence.Details{Owner: g.Owner, Reader: acme.reader(), Author: g.Writer, Grant: g.ID, Document: e.Hash, Seq: 5}, e.Raw)
	l.add(of(evidence.EntryManifest), evidence.Details{Owner: g.Owner, Reader: acme.reader(), Author: g.Writer, Document: policies.Hash{9}, Version: 1}, nil)
	l.add(of(evidence.EntryWriteEnd), evidence.Details{
		Owner: g.Owner, Reader: acme.reader(), Author: g.Writer, Document: policies.Hash{8}, Items: []policies.RevokedItem{{Grant: g.ID, Field: "phone.mobile", Author: g.Writer}},
	}, nil)
	seen := map[string]map[string]any{}
	for _, event := range objects(t, l.exported(t, OCSF, false)) {
		u := event["unmapped"].(map[string]any)
		seen[fmt.Sprint(u["kind"], " ", event["activity_id"])] = event
	}
	for _, kind := range []string{"write-grant 1", "write-end 2"} {
		event := seen[kind]
		if event == nil || fmt.Sprint(event["privileges"]) != "[write phone.mobile]" || event["class_uid"] != 3005.0 {
			t.Errorf("%s: %v", kind, event)
		}
	}
	if event := seen["manifest 2"]; event == nil || event["actor"].(map[string]any)["user"].(map[string]any)["uid"] != acme.pseudo.String() {
		t.Errorf("the manifest is not the writer's: %v", event)
	}
}
