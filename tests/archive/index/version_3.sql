BEGIN TRANSACTION;
CREATE TABLE commitment (
	id INTEGER NOT NULL, 
	transaction_uid TEXT NOT NULL, 
	requestor TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	"references" JSON NOT NULL, 
	failures JSON, 
	is_reported BOOLEAN DEFAULT 0 NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE deletion (
	id INTEGER NOT NULL, 
	sop_instance_uid TEXT DEFAULT '' NOT NULL, 
	path TEXT DEFAULT '' NOT NULL, 
	size BIGINT NOT NULL, 
	generation BIGINT DEFAULT '0' NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "deletion" VALUES(1,'1.9.1','/files/1.9.1.dcm',100,0);
CREATE TABLE header (
	instance_id INTEGER NOT NULL, 
	data BLOB NOT NULL, 
	PRIMARY KEY (instance_id), 
	FOREIGN KEY(instance_id) REFERENCES instance (id)
);
INSERT INTO "header" VALUES(1,X'E360106308F5946230D433D2B33031D033343030B0D033D533D4330162A0280307830450051B50051002790A0C2E8E1C0C46064606068606861C0C010CC11E4C0C8E86020C020C017E5C0CC1B9992519718E7979890240B53EFE4C0C01860A0CBC403358406600C5F8E0E619300000');
INSERT INTO "header" VALUES(2,X'E360106308F5946230D433D2B33031D033343030B0D033D533D4330162A0280307830450051B58852190A7C0E0E2C8C1606460646060686024C020C010E0C7C3E0979F949F5219E79D975F9E270054E3E3CF002479813A59403A816C3EB829060C00');
CREATE TABLE instance (
	id INTEGER NOT NULL, 
	parent_id INTEGER, 
	timezone TEXT DEFAULT '' NOT NULL, 
	instance_number TEXT DEFAULT '' NOT NULL, 
	sop_instance_uid TEXT DEFAULT '' NOT NULL, 
	sop_class_uid TEXT DEFAULT '' NOT NULL, 
	related_general_sop_class_uid TEXT DEFAULT '' NOT NULL, 
	content_date TEXT DEFAULT '' NOT NULL, 
	content_date_key TEXT DEFAULT '' NOT NULL, 
	content_time TEXT DEFAULT '' NOT NULL, 
	content_time_key TEXT DEFAULT '' NOT NULL, 
	alternate_representation_sequence BLOB, 
	available_transfer_syntax_uid TEXT DEFAULT '' NOT NULL, 
	number_of_frames TEXT DEFAULT '' NOT NULL, 
	container_identifier TEXT DEFAULT '' NOT NULL, 
	specimen_description_sequence BLOB, 
	concept_name_code_sequence BLOB, 
	content_template_sequence BLOB, 
	path TEXT DEFAULT '' NOT NULL, 
	size BIGINT NOT NULL, 
	digest TEXT DEFAULT '' NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(parent_id) REFERENCES series (id)
);
INSERT INTO "instance" VALUES(1,1,'','','1.1.1','1.2.840.10008.5.1.4.1.1.2','','','','','',NULL,'1.2.840.10008.1.2.1','','',NULL,NULL,NULL,'/files/1.1.1.dcm',1000,'');
INSERT INTO "instance" VALUES(2,2,'','','1.2.1','1.2.840.10008.5.1.4.1.1.2','','','','','',NULL,'1.2.840.10008.1.2.1','','',NULL,NULL,NULL,'/files/1.2.1.dcm',1000,'');
CREATE TABLE patient (
	id INTEGER NOT NULL, 
	identity TEXT DEFAULT '' NOT NULL, 
	patient_name TEXT DEFAULT '' NOT NULL, 
	patient_name_alphabetic TEXT DEFAULT '' NOT NULL, 
	patient_name_ideographic TEXT DEFAULT '' NOT NULL, 
	patient_name_phonetic TEXT DEFAULT '' NOT NULL, 
	patient_name_sound TEXT DEFAULT '' NOT NULL, 
	patient_id TEXT DEFAULT '' NOT NULL, 
	issuer_of_patient_id TEXT DEFAULT '' NOT NULL, 
	issuer_of_patient_id_qualifiers_sequence BLOB, 
	referenced_patient_sequence BLOB, 
	patient_birth_date TEXT DEFAULT '' NOT NULL, 
	patient_birth_date_key TEXT DEFAULT '' NOT NULL, 
	patient_birth_time TEXT DEFAULT '' NOT NULL, 
	patient_birth_time_key TEXT DEFAULT '' NOT NULL, 
	patient_sex TEXT DEFAULT '' NOT NULL, 
	other_patient_ids TEXT DEFAULT '' NOT NULL, 
	other_patient_names TEXT DEFAULT '' NOT NULL, 
	other_patient_ids_sequence BLOB, 
	ethnic_group TEXT DEFAULT '' NOT NULL, 
	patient_comments TEXT DEFAULT '' NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (identity)
);
INSERT INTO "patient" VALUES(1,'P1','Smith^Anna','smith^anna','','',' S530 A500 ','P1','',NULL,NULL,'','','','','','','',NULL,'','');
INSERT INTO "patient" VALUES(2,'\1.2','Nobody^Known','nobody^known','','',' N130 K550 ','','',NULL,NULL,'','','','','','','',NULL,'','');
CREATE TABLE procedure_step (
	uid TEXT NOT NULL, 
	state TEXT NOT NULL, 
	data BLOB NOT NULL, 
	created DOUBLE NOT NULL, 
	updated DOUBLE NOT NULL, 
	PRIMARY KEY (uid)
);
CREATE TABLE protection (
	study_instance_uid TEXT NOT NULL, 
	label TEXT DEFAULT '' NOT NULL, 
	created DOUBLE NOT NULL, 
	PRIMARY KEY (study_instance_uid)
);
INSERT INTO "protection" VALUES('1.1','a legal hold',1500.0);
CREATE TABLE scheduled_step (
	id INTEGER NOT NULL, 
	procedure_step_uid TEXT NOT NULL, 
	study_instance_uid TEXT NOT NULL, 
	step_id TEXT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(procedure_step_uid) REFERENCES procedure_step (uid)
);
CREATE TABLE schema_version (
	version INTEGER NOT NULL
);
INSERT INTO "schema_version" VALUES(3);
CREATE TABLE series (
	id INTEGER NOT NULL, 
	parent_id INTEGER NOT NULL, 
	timezone TEXT DEFAULT '' NOT NULL, 
	modality TEXT DEFAULT '' NOT NULL, 
	series_number TEXT DEFAULT '' NOT NULL, 
	series_instance_uid TEXT DEFAULT '' NOT NULL, 
	series_date TEXT DEFAULT '' NOT NULL, 
	series_date_key TEXT DEFAULT '' NOT NULL, 
	series_time TEXT DEFAULT '' NOT NULL, 
	series_time_key TEXT DEFAULT '' NOT NULL, 
	manufacturer TEXT DEFAULT '' NOT NULL, 
	institution_name TEXT DEFAULT '' NOT NULL, 
	station_name TEXT DEFAULT '' NOT NULL, 
	series_description TEXT DEFAULT '' NOT NULL, 
	institutional_department_name TEXT DEFAULT '' NOT NULL, 
	performing_physician_name TEXT DEFAULT '' NOT NULL, 
	manufacturer_model_name TEXT DEFAULT '' NOT NULL, 
	body_part_examined TEXT DEFAULT '' NOT NULL, 
	protocol_name TEXT DEFAULT '' NOT NULL, 
	laterality TEXT DEFAULT '' NOT NULL, 
	performed_procedure_step_start_date TEXT DEFAULT '' NOT NULL, 
	performed_procedure_step_start_date_key TEXT DEFAULT '' NOT NULL, 
	performed_procedure_step_start_time TEXT DEFAULT '' NOT NULL, 
	performed_procedure_step_start_time_key TEXT DEFAULT '' NOT NULL, 
	request_attributes_sequence BLOB, 
	PRIMARY KEY (id), 
	FOREIGN KEY(parent_id) REFERENCES study (id)
);
INSERT INTO "series" VALUES(1,1,'','','','1.1.0','','','','','','','','','','','','','','','','','','',NULL);
INSERT INTO "series" VALUES(2,2,'','','','1.2.0','','','','','','','','','','','','','','','','','','',NULL);
CREATE TABLE study (
	id INTEGER NOT NULL, 
	parent_id INTEGER NOT NULL, 
	timezone TEXT DEFAULT '' NOT NULL, 
	patient_name TEXT DEFAULT '' NOT NULL, 
	patient_name_alphabetic TEXT DEFAULT '' NOT NULL, 
	patient_name_ideographic TEXT DEFAULT '' NOT NULL, 
	patient_name_phonetic TEXT DEFAULT '' NOT NULL, 
	patient_name_sound TEXT DEFAULT '' NOT NULL, 
	patient_id TEXT DEFAULT '' NOT NULL, 
	issuer_of_patient_id TEXT DEFAULT '' NOT NULL, 
	issuer_of_patient_id_qualifiers_sequence BLOB, 
	referenced_patient_sequence BLOB, 
	patient_birth_date TEXT DEFAULT '' NOT NULL, 
	patient_birth_date_key TEXT DEFAULT '' NOT NULL, 
	patient_birth_time TEXT DEFAULT '' NOT NULL, 
	patient_birth_time_key TEXT DEFAULT '' NOT NULL, 
	patient_sex TEXT DEFAULT '' NOT NULL, 
	other_patient_ids TEXT DEFAULT '' NOT NULL, 
	other_patient_names TEXT DEFAULT '' NOT NULL, 
	other_patient_ids_sequence BLOB, 
	ethnic_group TEXT DEFAULT '' NOT NULL, 
	patient_comments TEXT DEFAULT '' NOT NULL, 
	study_date TEXT DEFAULT '' NOT NULL, 
	study_date_key TEXT DEFAULT '' NOT NULL, 
	study_time TEXT DEFAULT '' NOT NULL, 
	study_time_key TEXT DEFAULT '' NOT NULL, 
	accession_number TEXT DEFAULT '' NOT NULL, 
	study_id TEXT DEFAULT '' NOT NULL, 
	study_instance_uid TEXT DEFAULT '' NOT NULL, 
	anatomic_regions_in_study_code_sequence BLOB, 
	referring_physician_name TEXT DEFAULT '' NOT NULL, 
	referring_physician_name_alphabetic TEXT DEFAULT '' NOT NULL, 
	referring_physician_name_ideographic TEXT DEFAULT '' NOT NULL, 
	referring_physician_name_phonetic TEXT DEFAULT '' NOT NULL, 
	referring_physician_name_sound TEXT DEFAULT '' NOT NULL, 
	study_description TEXT DEFAULT '' NOT NULL, 
	procedure_code_sequence BLOB, 
	name_of_physicians_reading_study TEXT DEFAULT '' NOT NULL, 
	admitting_diagnoses_description TEXT DEFAULT '' NOT NULL, 
	referenced_study_sequence BLOB, 
	patient_age TEXT DEFAULT '' NOT NULL, 
	patient_size TEXT DEFAULT '' NOT NULL, 
	patient_size_key TEXT DEFAULT '' NOT NULL, 
	patient_weight TEXT DEFAULT '' NOT NULL, 
	patient_weight_key TEXT DEFAULT '' NOT NULL, 
	occupation TEXT DEFAULT '' NOT NULL, 
	additional_patient_history TEXT DEFAULT '' NOT NULL, 
	other_study_numbers TEXT DEFAULT '' NOT NULL, 
	received DOUBLE DEFAULT '0' NOT NULL, 
	calling TEXT DEFAULT '' NOT NULL, 
	called TEXT DEFAULT '' NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(parent_id) REFERENCES patient (id)
);
INSERT INTO "study" VALUES(1,1,'','Smith^Anna','smith^anna','','',' S530 A500 ','P1','',NULL,NULL,'','','','','','','',NULL,'','','20200101','20200101','','','A1','','1.1',NULL,'','','','','','',NULL,'','',NULL,'','','','','','','','',1000.0,'CT1','NODE');
INSERT INTO "study" VALUES(2,2,'','Nobody^Known','nobody^known','','',' N130 K550 ','','',NULL,NULL,'','','','','','','',NULL,'','','20200102','20200102','','','','','1.2',NULL,'','','','','','',NULL,'','',NULL,'','','','','','','','',0.0,'','');
CREATE TABLE task (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	kind TEXT NOT NULL, 
	destination TEXT NOT NULL, 
	chain TEXT DEFAULT '' NOT NULL, 
	payload JSON NOT NULL, 
	state TEXT NOT NULL, 
	attempt INTEGER DEFAULT '0' NOT NULL, 
	created DOUBLE NOT NULL, 
	not_before DOUBLE NOT NULL, 
	lease_until DOUBLE DEFAULT '0' NOT NULL, 
	owner TEXT DEFAULT '' NOT NULL, 
	last_error TEXT DEFAULT '' NOT NULL
);
CREATE TABLE worklist_item (
	id INTEGER NOT NULL, 
	study_instance_uid TEXT NOT NULL, 
	step_id TEXT NOT NULL, 
	data BLOB NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (study_instance_uid, step_id)
);
CREATE INDEX ix_patient_patient_id ON patient (patient_id);
CREATE INDEX ix_patient_patient_name_ideographic ON patient (patient_name_ideographic);
CREATE INDEX ix_patient_patient_birth_date_key ON patient (patient_birth_date_key);
CREATE INDEX ix_patient_patient_name_phonetic ON patient (patient_name_phonetic);
CREATE INDEX ix_patient_patient_name_alphabetic ON patient (patient_name_alphabetic);
CREATE INDEX ix_deletion_sop_instance_uid ON deletion (sop_instance_uid);
CREATE INDEX ix_task_state ON task (state, not_before);
CREATE INDEX ix_task_chain ON task (chain);
CREATE INDEX ix_commitment_transaction_uid ON commitment (transaction_uid);
CREATE INDEX ix_study_patient_name_phonetic ON study (patient_name_phonetic);
CREATE INDEX ix_study_patient_name_ideographic ON study (patient_name_ideographic);
CREATE UNIQUE INDEX ux_study_uid ON study (study_instance_uid);
CREATE INDEX ix_study_parent_id ON study (parent_id);
CREATE INDEX ix_study_study_date_key ON study (study_date_key);
CREATE INDEX ix_study_study_id ON study (study_id);
CREATE INDEX ix_study_patient_name_alphabetic ON study (patient_name_alphabetic);
CREATE INDEX ix_study_patient_id ON study (patient_id);
CREATE INDEX ix_study_patient_birth_date_key ON study (patient_birth_date_key);
CREATE INDEX ix_study_accession_number ON study (accession_number);
CREATE INDEX ix_study_received ON study (received);
CREATE INDEX ix_scheduled_step_study_instance_uid ON scheduled_step (study_instance_uid);
CREATE UNIQUE INDEX ux_series_uid ON series (parent_id, series_instance_uid);
CREATE INDEX ix_series_series_instance_uid ON series (series_instance_uid);
CREATE INDEX ix_instance_parent_id ON instance (parent_id);
CREATE UNIQUE INDEX ux_instance_uid ON instance (sop_instance_uid);
DELETE FROM "sqlite_sequence";
COMMIT;
