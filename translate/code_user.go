package translate

// Codes about what users add.
const (
	CodeExtensionInvalid    Code = "extension_invalid"
	CodeExtensionRefused    Code = "extension_refused"
	CodeExtensionShadowed   Code = "extension_shadowed"
	CodeExtensionUnchecked  Code = "extension_unchecked"
	CodeExtensionUnused     Code = "extension_unused"
	CodeExtensionIgnored    Code = "extension_file_ignored"
	CodeExtensionDirectory  Code = "extension_directory"
	CodeUnenforcedExtension Code = "unenforced_extension"
)

// userExtensionCodes are the codes about what users add.
func userExtensionCodes() []CodeInfo {
	return []CodeInfo{
		{
			CodeExtensionInvalid, SeverityError, "%s; %s",
			"A document in the directory of --extensions cannot be used as it is. The other documents of its file are. The last version of it that could be used is served on, if there was one since the start; otherwise, where it would have restricted access, what it selects answers 403.",
		},
		{
			CodeExtensionRefused, SeverityError, "%s is left out here: %s",
			"The plugin is what the mesh's own configuration needs on this route, or could change requests before rules of access have seen them. docs/extensions.md has the rules. Where it would have restricted access, the route answers 403.",
		},
		{
			CodeExtensionShadowed, SeverityInfo, "%s has no effect here: plugin %s is %s's",
			"Two documents have the same plugin for a route. The one with the higher priority wins, or else the first by file and place.",
		},
		{
			CodeExtensionUnchecked, SeverityWarning, "the configuration of plugin %s is not checked: %s",
			"APISIX drops a whole route whose plugin its schema refuses. The schemas that are built in are those of APISIX 3.18 as far as they are known; --extensions-schema names those of another.",
		},
		{
			CodeExtensionUnused, SeverityWarning, "it selects no route",
			"Nothing of what istiod has sent to this workload is selected. Look for a misspelt host, or a selector for something that this workload does not have; workloadSelector keeps a document from workloads that it is not for.",
		},
		{
			CodeExtensionIgnored, SeverityWarning, "the file is not read: %s",
			"Files of extensions end in .yaml, .yml or .json.",
		},
		{
			CodeExtensionDirectory, SeverityError, "the directory of extensions cannot be read: %s; what was read before is served on",
			"An empty directory has no extensions. One that is missing is taken for a mistake.",
		},
		{
			CodeUnenforcedExtension, SeverityError, "%s restricts access and cannot be added; %s",
			"What a user adds to protect something is refused, so that it is not protected as it was meant. Another diagnostic has the reason. --allow-unenforced unenforced_extension opens it.",
		},
	}
}
