package translate

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Each code is about a construct, about all listeners, or said to be about neither.
func TestEveryCodeHasItsPlaceInTheSupportTable(t *testing.T) {
	known := newCatalogue()
	placed := map[Code]bool{}
	place := func(where string, code Code) {
		if _, ok := known[code]; !ok {
			t.Errorf("%s: %q is no code", where, code)
		}
		placed[code] = true
	}
	for _, section := range SupportTable() {
		for _, row := range section.Rows {
			for _, code := range row.Codes {
				place(row.Construct, code)
			}
		}
	}
	for _, code := range supportedEverywhere() {
		place("every listener", code)
	}
	for code := range codesOfNoConstruct() {
		place("no construct", code)
	}
	for _, info := range Codes() {
		if !placed[info.Code] {
			t.Errorf("%s has no place in the table", info.Code)
		}
		text, ok := Explanation(info.Code)
		if !ok || !strings.Contains(text, info.Explanation) || !strings.Contains(text, "Where it appears") || strings.Contains(text, "%%") {
			t.Errorf("the explanation of %s is %q", info.Code, text)
		}
	}
	if _, ok := Explanation("no_such_code"); ok {
		t.Error("what is no code has an explanation")
	}
}

// What is said to prove a row is there. A case or recording of a row with diagnostics has one of them.
func TestEveryRowOfTheSupportTableIsProved(t *testing.T) {
	tests := testFunctions(t)
	constructs := map[string]bool{}
	for _, section := range SupportTable() {
		for _, row := range section.Rows {
			if constructs[row.Construct] {
				t.Errorf("%s is there twice", row.Construct)
			}
			constructs[row.Construct] = true
			if row.Becomes == "" || !slices.Contains(supportClasses(), row.Class) {
				t.Errorf("%s: class %q, %q", row.Construct, row.Class, row.Becomes)
			}
			switch {
			case row.Test == "":
				if row.Class == Exact && row.Source != "" {
					t.Errorf("%s is called exact, which nothing proves", row.Construct)
				}
			case strings.HasPrefix(row.Test, "Test"):
				if !tests[row.Test] {
					t.Errorf("%s: there is no %s", row.Construct, row.Test)
				}
			default:
				text, ok := provingText(row.Test)
				reported := slices.ContainsFunc(row.Codes, func(c Code) bool { return strings.Contains(text, "["+string(c)+"]") })
				switch {
				case !ok:
					t.Errorf("%s: there is neither a case nor a recording %s", row.Construct, row.Test)
				case row.Class != Exact && row.Class != Approximate && len(row.Codes) > 0 && !reported:
					t.Errorf("%s: %s has none of %v", row.Construct, row.Test, row.Codes)
				}
			}
		}
	}
}

// provingText returns a case, or the golden files of a recording, with what is wrapped in one line.
func provingText(name string) (text string, ok bool) {
	files, err := filepath.Glob("../testdata/istiod/" + name + "/*.yaml")
	if err != nil {
		return "", false
	}
	for _, file := range append(files, "../testdata/cases/"+name+".txtar") {
		if data, err := os.ReadFile(file); err == nil {
			text, ok = text+string(data), true
		}
	}
	return text, ok
}

func testFunctions(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(source, -1) {
			found[string(m[1])] = true
		}
	}
	return found
}

func TestTheSupportDocumentIsUpToDate(t *testing.T) {
	compareGolden(t, "../docs/support.md", []byte(SupportDocument()))
}

// The README counts the rows. It is the only part of it that -update writes.
func TestTheReadmeCountsTheConstructs(t *testing.T) {
	const file = "../README.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	counts := regexp.MustCompile(`of (\d+), (\d+) are exact, (\d+) approximate with a stated difference, (\d+) not done yet, (\d+) not possible in APISIX, and (\d+) need`)
	at := counts.FindSubmatchIndex(text)
	if at == nil {
		t.Fatalf("%s does not have %s", file, counts)
	}
	count := map[SupportClass]int{}
	total := 0
	for _, section := range SupportTable() {
		for _, row := range section.Rows {
			count[row.Class]++
			total++
		}
	}
	want := fmt.Sprintf("of %d, %d are exact, %d approximate with a stated difference, %d not done yet, %d not possible in APISIX, and %d need",
		total, count[Exact], count[Approximate], count[NotYet], count[NotPossible], count[NeedsCapture])
	compareGolden(t, file, slices.Concat(text[:at[0]], []byte(want), text[at[1]:]))
}
