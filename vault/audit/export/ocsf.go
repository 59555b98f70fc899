package export

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
)

// ocsfVersion is the version of the schema. What the classes that are used here require is the same from 1.5 to 1.8.
const ocsfVersion = "1.5.0"

// A class of events of OCSF, and what the activities are called.
type class struct {
	uid        int
	name       string
	activities map[int]string
}

// category is the first digit of a class.
func (c *class) category() int { return c.uid / 1000 }

var categories = map[int]string{0: "Uncategorized", 2: "Findings", 3: "Identity & Access Management", 6: "Application Activity"}

var (
	baseEvent      = &class{0, "Base Event", map[int]string{99: "Other"}}
	finding        = &class{2004, "Detection Finding", map[int]string{1: "Create", 6: "Delete"}}
	accountChange  = &class{3001, "Account Change", map[int]string{1: "Create", 3: "Password Change", 6: "Delete"}}
	authentication = &class{3002, "Authentication", map[int]string{1: "Logon"}}
	entity         = &class{3004, "Entity Management", map[int]string{1: "Create", 3: "Update", 4: "Delete"}}
	userAccess     = &class{3005, "User Access Management", map[int]string{1: "Assign Privileges", 2: "Revoke Privileges"}}
	lifecycle      = &class{6002, "Application Lifecycle", map[int]string{1: "Install", 3: "Start", 4: "Stop"}}
	datastore      = &class{6005, "Datastore Activity", map[int]string{1: "Read", 2: "Update", 4: "Query", 7: "Delete"}}
	applicationErr = &class{6008, "Application Error", map[int]string{1: "General Error"}}
)

// classify says which event an entry is. README.md has the table.
func classify(e *Event) (c *class, activity int) {
	switch e.Kind {
	case kindFault:
		return finding, 1
	case evidence.EntryGenesis:
		return lifecycle, 1
	case evidence.EntryStart:
		return lifecycle, 3
	case evidence.EntryStop:
		return lifecycle, 4
	case evidence.EntryIdentity:
		return accountChange, 1
	case evidence.EntryClosure:
		return accountChange, 6
	case evidence.EntrySuccession:
		return accountChange, 3
	case evidence.EntryNotice, evidence.EntrySuspension, evidence.EntryVoucher, evidence.EntryGuardrails:
		return entity, 3
	case evidence.EntryFreeze, evidence.EntryThaw:
		return entity, 3
	case evidence.EntrySession:
		return authentication, 1
	case evidence.EntryManifest:
		return datastore, 2
	case evidence.EntryAccess:
		return datastore, 4
	case evidence.EntryErasure:
		return datastore, 7
	case evidence.EntryImport:
		return entity, 1
	case evidence.EntryGrant, evidence.EntryWriteGrant:
		return userAccess, 1
	case evidence.EntryWriteEnd:
		return userAccess, 2
	case evidence.EntryRevocation, evidence.EntryGivenUp:
		return userAccess, 2
	case evidence.EntryDestroyed, evidence.EntrySealing:
		return entity, 4
	case evidence.EntryUse:
		return datastore, 1
	case evidence.EntryFailed:
		switch {
		case e.Body != "":
			return applicationErr, 1
		case e.Period != 0:
			return entity, 4
		case e.Grant != nil:
			return entity, 1
		}
		return datastore, 1
	case evidence.EntryRefusal:
		if e.Document != nil {
			return entity, 1
		}
		return datastore, 1
	case evidence.EntryRefusals:
		switch {
		case e.Reader != nil:
			return datastore, 1
		case e.Owner != nil:
			return entity, 1
		}
		return authentication, 1
	}
	return baseEvent, 99
}

const (
	unknown = 0
	success = 1
	failure = 2
)

// status is OCSF's status_id.
func status(e *Event) int {
	switch e.Kind {
	case evidence.EntryFailed, evidence.EntryRefusal, evidence.EntryRefusals, kindFault:
		return failure
	case evidence.EntryImport:
		return unknown // about to be done
	}
	switch e.Outcome {
	case policies.CodeAccepted, policies.CodeReleased, policies.CodeUnchanged:
		return success
	case "":
		return unknown
	}
	return failure
}

type object = map[string]any

// ocsf is an event of OCSF for each event, and for a revocation one for each grant that it ends. All that the event says is under unmapped too, with the names
// that JSON lines have.
func ocsf(e *Event) ([][]byte, error) {
	c, activity := classify(e)
	uid := e.UID
	var lines [][]byte
	for i, end := range perGrant(e) {
		if i > 0 {
			uid = fmt.Sprintf("%s/%d", e.UID, i)
		}
		id := status(e)
		o := object{
			"activity_id": activity, "activity_name": c.activities[activity], "category_uid": c.category(), "category_name": categories[c.category()],
			"class_uid": c.uid, "class_name": c.name, "type_uid": 100*c.uid + activity, "type_name": c.name + ": " + c.activities[activity],
			"severity_id": e.Severity, "severity": [...]string{informational: "Informational", low: "Low", medium: "Medium", high: "High", critical: "Critical"}[e.Severity],
			"status_id": id, "status": [...]string{"Unknown", "Success", "Failure"}[id], "message": e.Message, "time": e.at.UnixMilli(), "unmapped": e,
		}
		if e.Outcome != "" {
			o["status_code"] = e.Outcome
		}
		if c == finding { // there, a status is that of the finding
			o["status_id"], o["status"] = 1, "New"
		}
		if e.Count > 0 && e.Kind == evidence.EntryRefusals {
			o["count"] = e.Count
		}
		o["metadata"] = metadata(e, uid)
		e.fill(o, c, end)
		line, err := marshal(o)
		if err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// perGrant is what a revocation ends, and one for all other events.
func perGrant(e *Event) []ended {
	if e.Kind == evidence.EntryRevocation && len(e.ended) > 0 {
		return e.ended
	}
	return []ended{{}}
}

func metadata(e *Event, uid string) object {
	m := object{
		"version": ocsfVersion, "uid": uid, "log_name": e.Log, "log_provider": "sallyport",
		"product": object{"name": "Sallyport", "vendor_name": "Sallyport", "feature": object{"name": "key-use log"}},
	}
	if e.Index != nil && e.Fault == nil {
		m["sequence"] = *e.Index
	}
	if e.Request != nil {
		m["correlation_uid"] = e.Request
	}
	return m
}

// fill adds what a class has besides.
func (e *Event) fill(o object, c *class, end ended) {
	owner := user(either(e.OwnerID, e.Owner), "")
	reader := user(either(e.ReaderID, e.Reader), e.Name)
	switch c {
	case finding:
		o["finding_info"] = object{"uid": e.UID, "title": "The key-use log is not in order: " + string(e.Fault.Code), "desc": e.Fault.What, "types": []string{string(e.Fault.Code)}}
		o["is_alert"] = true
	case accountChange:
		o["user"] = owner
		o["actor"] = object{"user": owner}
	case authentication:
		o["user"] = reader
		o["service"] = object{"name": "Sallyport vault", "uid": e.Vault.String()}
		o["is_remote"] = true
		if e.Session != nil {
			o["session"] = object{"uid": e.Session, "expiration_time": 1000 * e.Expires, "is_remote": true}
		}
	case userAccess:
		fields := e.Fields
		if e.Kind == evidence.EntryRevocation {
			fields, reader = end.fields, user(pseudonym(end.reader), "")
			if e.Reader != nil && end.reader == *e.Reader { // whose id is known
				reader = user(either(e.ReaderID, e.Reader), e.Name)
			}
		}
		o["user"] = reader
		o["actor"] = object{"user": owner}
		if e.Kind == evidence.EntryGivenUp {
			o["actor"] = object{"user": reader}
		}
		right := "read"
		if e.Kind == evidence.EntryWriteGrant || e.Kind == evidence.EntryWriteEnd {
			right = "write"
		}
		o["privileges"] = privileges(right, fields)
		o["resources"] = []object{{"type": "sallyport owner's fields", "uid": either(e.OwnerID, e.Owner), "name": strings.TrimSpace("fields " + joined(fields)), "owner": owner}}
	case entity:
		o["entity"] = e.entity()
		o["actor"] = object{"user": owner}
	case lifecycle:
		o["app"] = object{"name": "Sallyport vault", "uid": e.Vault.String(), "vendor_name": "Sallyport"}
	case datastore:
		actor := reader
		if e.Kind == evidence.EntryManifest || e.Reader == nil {
			actor = owner
			if e.Author != nil && (e.Owner == nil || *e.Author != *e.Owner) {
				actor = user(e.Author.String(), "")
			}
		}
		o["actor"] = object{"user": actor}
		o["src_endpoint"] = object{"uid": actor["uid"], "svc_name": "sallyport"} // the log holds no addresses
		o["database"] = object{"name": "key-use log", "uid": e.Log, "type_id": 99, "type": "log"}
		o["type_id"], o["type"] = 1, "Database"
		if e.Kind != evidence.EntryAccess && e.Kind != evidence.EntryErasure {
			o["database"] = object{"name": "fields of an owner", "uid": owner["uid"], "type_id": 99, "type": "owner's fields"}
		}
		if e.Field != "" {
			o["table"] = object{"name": e.Field}
		}
	}
}

// entity is what was made or destroyed, or should have been.
func (e *Event) entity() object {
	x := object{"type_id": 99, "type": "re-encryption keys"}
	switch {
	case e.Period != 0 && (e.Kind == evidence.EntrySealing || e.Kind == evidence.EntryFailed):
		x["type"], x["uid"] = "sealing key", fmt.Sprintf("period %d", e.Period)
	case e.Grant != nil:
		x["uid"] = e.Grant
	case e.Kind == evidence.EntryRefusal:
		x["type"], x["name"] = "document", "refused "+e.Note
		x["uid"] = e.Document
	case e.Kind == evidence.EntryRefusals:
		x["type"], x["name"] = "document", "refused documents"
	case e.Document != nil:
		x["uid"] = e.Document
	default:
		x["uid"] = e.UID
	}
	return x
}

// user is somebody by id or pseudonym. OCSF asks for one where there may be none: a caller who could not be identified, or whose entry's body is gone.
func user(uid, name string) object {
	if uid == "" {
		return object{"uid": "unknown", "type_id": 0}
	}
	u := object{"uid": uid, "type_id": 1}
	if name != "" {
		u["name"] = name
	}
	return u
}

func pseudonym(p policies.Pseudonym) string {
	if p.IsZero() {
		return ""
	}
	return p.String()
}

// privileges are what a grant lets, or let, its reader do. Where the body is gone, which fields is not known.
func privileges(right string, fields []policies.Field) []string {
	if len(fields) == 0 {
		return []string{right}
	}
	out := make([]string, len(fields))
	for i, f := range fields {
		out[i] = right + " " + string(f)
	}
	return out
}

func joined(fields []policies.Field) string {
	words := make([]string, len(fields))
	for i, f := range fields {
		words[i] = string(f)
	}
	return strings.Join(words, ", ")
}

// marshal is JSON on one line, without escapes that only a web page needs.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
